#include "spectralquant/evaluate/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "spectralquant/core/markdown_text.h"
#include "spectralquant/core/printable.h"

namespace spectralquant::evaluate {
namespace {

/// "36 k", "3.6 M": an estimate has two digits.
std::string rounded(std::int64_t n) {
  const double millions = static_cast<double>(n) / 1e6;
  if (millions >= 9.95) return fmt::format("{:.0f} M", millions);
  return millions >= 0.995 ? fmt::format("{:.1f} M", millions)
                           : fmt::format("{:.0f} k", std::max(1.0, 1000 * millions));
}

/// Every candidate against the one with the lowest KLD on the suite.
Grid pairs_grid(const Evaluation& e, std::size_t suite) {
  Grid grid;
  const auto best = best_row(e.table, suite, ranked_columns()[1]);
  if (!best) return grid;
  const auto& name = e.table.rows[*best].name;
  grid.title = fmt::format("{}: against {}, token by token", e.table.suites[suite].name, name);
  grid.head = {"model", "Δ loss", "95 %", "", "Δ KLD", "95 %", "", "tokens for 1 %"};
  grid.left = {3, 6};
  for (const auto& pair : e.pairs) {
    if (pair.suite != suite || (pair.a != *best && pair.b != *best)) continue;
    const auto& c = pair.comparison;
    const double sign = pair.b == *best ? 1 : -1;                  // as "model − best"
    const auto turned = [&](double x) { return sign * x + 0.0; };  // no -0.0000
    const auto range = [&](const Interval& i) {
      return fmt::format("{:+.4f} to {:+.4f}", turned(sign > 0 ? i.low : i.high),
                         turned(sign > 0 ? i.high : i.low));
    };
    const auto word = [&](Verdict v) {
      if (sign > 0 || v == Verdict::kNotDistinguishable) return std::string(name_of(v));
      return std::string(name_of(v == Verdict::kBetter ? Verdict::kWorse : Verdict::kBetter));
    };
    grid.rows.push_back(
        {e.table.rows[sign > 0 ? pair.a : pair.b].name, fmt::format("{:+.4f}", turned(c.loss.mean)),
         range(c.loss), word(c.loss_verdict), fmt::format("{:+.4f}", turned(c.kld.mean)),
         range(c.kld), word(c.kld_verdict),
         c.enough               ? "enough"
         : c.tokens_needed == 0 ? "–"
                                : fmt::format("too few, about {}", rounded(c.tokens_needed))});
  }
  return grid;
}

Grid overlap_grid(const Evaluation& e) {
  Grid grid;
  grid.title = "Calibration text and suites";
  grid.head = {"suite",           "calibration text", "label",     "8-word runs shared",
               "near-duplicates", "of the words",     "source AUC"};
  grid.left = {1, 2};
  for (const auto& o : e.overlaps) {
    grid.rows.push_back({o.suite, o.calibration, std::string(name_of(o.seen)),
                         fmt::format("{:.2f} %", 100 * o.shared_ngrams),
                         fmt::format("{}", o.near_duplicates),
                         fmt::format("{:.1f} %", 100 * o.near_duplicate_share),
                         o.has_source_auc ? fmt::format("{:.2f}", o.source_auc) : "–"});
  }
  return grid;
}

Grid matches_grid(const Overlap& overlap) {
  constexpr std::size_t kShown = 5;
  Grid grid;
  grid.title =
      fmt::format("{}: passages that also stand in {}", overlap.suite, overlap.calibration);
  grid.head = {"passage", "calibration text", "likeness"};
  grid.left = {1};
  for (const auto& m : overlap.matches) {
    if (grid.rows.size() == kShown) break;
    grid.rows.push_back(
        {m.suite_place, m.calibration_place, fmt::format("{:.0f} %", 100 * m.similarity)});
  }
  return grid;
}

Grid continuation_grid(const Evaluation& e) {
  Grid grid;
  const auto n_tokens = e.continuations.empty() ? 0 : e.continuations[0].n_tokens;
  grid.title = fmt::format("Greedy continuations of {} tokens", n_tokens);
  grid.head = {"model",           "suite",    "prompts", "tokens until they differ (median)",
               "same to the end", "same part"};
  grid.left = {1};
  for (const auto& w : e.continuations) {
    const auto& d = w.prefixes;
    grid.rows.push_back(
        {e.table.rows[w.row].name, e.table.suites[w.suite].name, fmt::format("{}", w.n_prompts),
         d.median ? fmt::format("{:g}", *d.median) : fmt::format("over {}", w.n_tokens),
         fmt::format("{:.1f} %", 100 * d.identical), fmt::format("{:.1f} %", 100 * d.agreement)});
  }
  return grid;
}

Grid choice_grid(const Evaluation& e, const Evaluation::Choices& c) {
  Grid grid;
  grid.title = fmt::format("{} ({} questions)", c.name, c.n_questions);
  grid.head = {"model", "right", "95 %", "right, per byte", "as the reference", "gained", "lost"};
  for (std::size_t r = 0; r < c.scores.size(); ++r) {
    const auto& s = c.scores[r];
    const bool reference = e.table.rows[r].is_reference;
    if (!s.is_finite()) {
      grid.rows.push_back({e.table.rows[r].name, "not finite", "–", "–", "–", "–", "–"});
      continue;
    }
    const auto percent = [](double x) { return fmt::format("{:.1f} %", 100 * x); };
    grid.rows.push_back(
        {e.table.rows[r].name, percent(s.accuracy.mean),
         fmt::format("{:.0f}–{:.0f} %", 100 * s.accuracy.low, 100 * s.accuracy.high),
         percent(s.accuracy_per_byte.mean), reference ? "–" : percent(s.agreement.mean),
         reference ? "–" : fmt::format("{}", s.gained),
         reference ? "–" : fmt::format("{}", s.lost)});
  }
  return grid;
}

/// Tables that are there, in the order they are read.
std::vector<Grid> grids_of(const Evaluation& e) {
  std::vector<Grid> grids;
  if (!e.table.suites.empty()) grids.push_back(overview(e.table));
  for (std::size_t s = 0; s < e.table.suites.size(); ++s) grids.push_back(suite_grid(e.table, s));
  for (std::size_t s = 0; s < e.table.suites.size(); ++s) grids.push_back(pairs_grid(e, s));
  grids.push_back(overlap_grid(e));
  for (const auto& overlap : e.overlaps) grids.push_back(matches_grid(overlap));
  grids.push_back(continuation_grid(e));
  for (const auto& c : e.choices) grids.push_back(choice_grid(e, c));
  std::erase_if(grids, [](const Grid& g) { return g.rows.empty(); });
  return grids;
}

/// Verdicts, where there is something to judge by: a calibration text, or a loss below the
/// original's.
std::vector<std::string> verdicts_of(const Evaluation& e) {
  std::vector<std::string> lines;
  for (const auto& judgement : e.alignments)
    for (const auto& a : judgement.suites)
      if (!e.overlaps.empty() || a.below_reference)
        lines.push_back(fmt::format("{} on {}: {}. {}", e.table.rows[judgement.row].name, a.suite,
                                    a.verdict, a.text));
  return lines;
}

/// What must be known of single models and suites.
std::vector<std::string> notes_of(const Evaluation& e) {
  std::vector<std::string> lines;
  for (const auto& note : e.notes)
    lines.push_back(
        fmt::format("Note on {}: {}", note.model.empty() ? note.suite : note.model, note.text));
  return lines;
}

/// `baseline`: its name as the printed form shows names.
std::string legend(const Evaluation& e, const std::string& baseline) {
  const auto& table = e.table;
  std::string text =
      "loss: mean nats per token. KLD: mean KL(reference ‖ model) in nats per token. BPW: bits per "
      "weight of the whole file.";
  if (!baseline.empty())
    text += fmt::format(" Gap recovery: ({0} − model) / ({0} − reference) in loss.", baseline);
  text += " Intervals: 95 % bootstrap over documents or windows.";
  const auto is_below = [](const Row& row) {
    return !row.is_reference &&
           std::any_of(row.scores.begin(), row.scores.end(),
                       [](const Score& s) { return s.is_finite() && s.loss_change.high < 0; });
  };
  if (std::any_of(table.rows.begin(), table.rows.end(), is_below))
    text += " ↓: below the original's loss, and not by chance.";
  return text + "\n";
}

std::string csv_cell(const std::string& name) {
  const std::string text = printable(name);
  if (text.find_first_of(",\"") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

std::string to_terminal(const Evaluation& e, int width, bool color) {
  std::string out;
  for (const auto& grid : grids_of(e)) out += draw_terminal(grid, width, color) + "\n";
  for (const auto& line : verdicts_of(e)) out += printable(line) + "\n\n";
  for (const auto& line : notes_of(e)) out += printable(line) + "\n\n";
  return out + "* best candidate of a column. " + legend(e, printable(e.table.baseline));
}

std::string to_markdown(const Evaluation& e) {
  std::string out;
  for (const auto& grid : grids_of(e)) out += draw_markdown(grid) + "\n";
  auto lines = verdicts_of(e);
  for (auto& line : notes_of(e)) lines.push_back(std::move(line));
  for (const auto& line : lines) out += "- " + markdown_text(line) + "\n";
  if (!lines.empty()) out += "\n";
  return out + "Bold: best candidate of a column. " + legend(e, markdown_text(e.table.baseline));
}

std::string to_csv(const Evaluation& e) {
  std::string out =
      "model,suite,protocol,label,reference,bytes,mebibytes,file_bpw,matrix_bpw,tokens,loss,loss_"
      "low,loss_high,loss_change,loss_change_low,"
      "loss_change_high,"
      "kld,kld_low,kld_high,kld_p90,kld_p99,kld_max,same_top,same_top_low,same_top_high,rms_delta_"
      "p,gap_recovery,gap_recovery_low,gap_"
      "recovery_high,not_finite\n";
  const auto number = [](double x) {
    return std::isfinite(x) ? fmt::format(",{:.9g}", x) : std::string(",");
  };
  const auto interval = [&](const Interval& i) {
    return number(i.mean) + number(i.low) + number(i.high);
  };
  const auto& table = e.table;
  for (const auto& row : table.rows) {
    for (std::size_t s = 0; s < row.scores.size(); ++s) {
      const auto& score = row.scores[s];
      const auto& seen = table.suite_seen[s];
      out += fmt::format("{},{},{},{},{},{}", csv_cell(row.name), csv_cell(table.suites[s].name),
                         table.suites[s].protocol_text, seen ? name_of(*seen) : std::string_view(),
                         row.is_reference ? 1 : 0,
                         row.is_stored ? std::string() : fmt::format("{}", row.size_bytes));
      out += (row.is_stored
                  ? ",,,"
                  : number(row.mebibytes()) + number(row.file_bpw) + number(row.matrix_bpw)) +
             fmt::format(",{}", score.n_tokens) + interval(score.loss);
      out += row.is_reference ? ",,," : interval(score.loss_change);
      out += interval(score.kld) + number(score.kld_p90) + number(score.kld_p99) +
             number(score.kld_max) + interval(score.top1_agreement) + number(score.rms_delta_p);
      out += (score.has_gap_recovery ? interval(score.gap_recovery) : ",,,");
      out += fmt::format(",{}\n", score.n_not_finite);
    }
  }
  return out;
}

}  // namespace spectralquant::evaluate
