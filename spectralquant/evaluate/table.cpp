#include "spectralquant/evaluate/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace spectralquant::evaluate {
namespace {

/// Columns of text, ready for any of the printed forms. The first column is aligned left, the others right.
struct Grid {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  std::vector<int> emphasized;  ///< row indices drawn bold: the reference's neighbours of interest
};

std::string percent(const Interval& i) { return fmt::format("{:.1f} %", 100 * i.mean); }

std::string gap(const Row& row, const Score& score) {
  if (row.is_reference) return "100 %";
  if (row.is_baseline) return "0 %";
  if (!score.has_gap_recovery || !std::isfinite(score.gap_recovery.mean)) return "–";
  return percent(score.gap_recovery);
}

std::string name_of(const Row& row) { return row.name; }

Grid overview(const Table& table) {
  Grid grid;
  grid.head = {"model", "BPW", "MiB"};
  for (const auto& suite : table.suites) grid.head.push_back(suite.name + " loss"), grid.head.push_back("KLD");
  for (const auto& row : table.rows) {
    std::vector<std::string> cells = {name_of(row), fmt::format("{:.2f}", row.file_bpw), fmt::format("{:.2f}", row.mebibytes)};
    for (const auto& score : row.scores) {
      cells.push_back(fmt::format("{:.4f}", score.loss.mean));
      cells.push_back(row.is_reference ? "–" : fmt::format("{:.4f}", score.kld.mean));
    }
    grid.rows.push_back(std::move(cells));
  }
  return grid;
}

Grid detail(const Table& table, std::size_t suite) {
  const auto& spec = table.suites[suite];
  Grid grid;
  grid.title = fmt::format("{} ({}, {} tokens)", spec.name, spec.protocol_text, table.suite_tokens[suite]);
  grid.head = {"model", "loss", "95 %", "KLD", "95 %", "90 %", "99 %", "max", "RMS Δp", "same top"};
  if (!table.baseline.empty()) grid.head.insert(grid.head.end(), {"gap recovery", "95 %"});
  for (const auto& row : table.rows) {
    const auto& s = row.scores[suite];
    std::vector<std::string> cells = {name_of(row), fmt::format("{:.4f}", s.loss.mean), fmt::format("{:.3f}–{:.3f}", s.loss.low, s.loss.high)};
    if (row.is_reference) {
      for (int i = 0; i < 7; ++i) cells.push_back("–");
    } else {
      cells.insert(cells.end(), {fmt::format("{:.4f}", s.kld.mean), fmt::format("{:.4f}–{:.4f}", s.kld.low, s.kld.high), fmt::format("{:.4f}", s.kld_p90),
                                 fmt::format("{:.4f}", s.kld_p99), fmt::format("{:.3f}", s.kld_max), fmt::format("{:.2f} %", 100 * s.rms_delta_p),
                                 percent(s.top1_agreement)});
    }
    if (!table.baseline.empty()) {
      const bool shown = !row.is_reference && !row.is_baseline && s.has_gap_recovery && std::isfinite(s.gap_recovery.low);
      cells.push_back(gap(row, s));
      cells.push_back(shown ? fmt::format("{:.0f}–{:.0f} %", 100 * s.gap_recovery.low, 100 * s.gap_recovery.high) : "–");
    }
    grid.rows.push_back(std::move(cells));
  }
  return grid;
}

std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::vector<std::size_t> widths_of(const Grid& grid) {
  std::vector<std::size_t> widths;
  for (const auto& cell : grid.head) widths.push_back(display_width(cell));
  for (const auto& row : grid.rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  return widths;
}

std::string aligned(const std::string& text, std::size_t width, bool left) {
  const std::string space(width > display_width(text) ? width - display_width(text) : 0, ' ');
  return left ? fmt::format("{}{}", text, space) : fmt::format("{}{}", space, text);
}

/// A grid wider than the terminal is broken into groups of columns, the first column repeated.
std::string draw(const Grid& grid, int terminal_width, bool color) {
  const auto widths = widths_of(grid);
  std::string out;
  if (!grid.title.empty()) out += fmt::format("{}{}{}\n", color ? "\x1b[1m" : "", grid.title, color ? "\x1b[0m" : "");
  std::size_t first = 1;
  while (first < widths.size()) {
    std::size_t last = first, used = widths[0];
    while (last < widths.size() && (last == first || used + 2 + widths[last] <= static_cast<std::size_t>(terminal_width))) used += 2 + widths[last++];
    const auto line = [&](const std::vector<std::string>& cells) {
      std::string text = aligned(cells[0], widths[0], true);
      for (std::size_t c = first; c < last; ++c) text += fmt::format("  {}", aligned(cells[c], widths[c], false));
      return text;
    };
    out += fmt::format("{}{}{}\n", color ? "\x1b[2m" : "", line(grid.head), color ? "\x1b[0m" : "");
    for (const auto& row : grid.rows) out += line(row) + "\n";
    first = last;
    if (first < widths.size()) out += "\n";
  }
  return out;
}

std::string markdown(const Grid& grid) {
  const auto line = [](const std::vector<std::string>& cells) { return fmt::format("| {} |\n", fmt::join(cells, " | ")); };
  std::string out;
  if (!grid.title.empty()) out += fmt::format("**{}**\n\n", grid.title);
  out += line(grid.head);
  out += "|---|";
  for (std::size_t c = 1; c < grid.head.size(); ++c) out += "---:|";
  out += "\n";
  for (const auto& row : grid.rows) out += line(row);
  return out;
}

std::string legend(const Table& table) {
  std::string text = "loss: mean nats per token. KLD: mean KL(reference ‖ model) in nats per token. BPW: bits per weight of the whole file.";
  if (!table.baseline.empty()) text += fmt::format(" Gap recovery: ({0} − model) / ({0} − reference) in loss.", table.baseline);
  return text + " Intervals: 95 % bootstrap over documents or windows.\n";
}

nlohmann::json to_json(const Interval& i) {
  // JSON has no NaN: a recovery whose baseline equals the reference is null.
  const auto number = [](double x) { return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr); };
  return {{"mean", number(i.mean)}, {"low", number(i.low)}, {"high", number(i.high)}};
}

}  // namespace

std::string to_terminal(const Table& table, int width, bool color) {
  std::string out = draw(overview(table), width, color);
  for (std::size_t s = 0; s < table.suites.size(); ++s) out += fmt::format("\n{}", draw(detail(table, s), width, color));
  return fmt::format("{}\n{}", out, legend(table));
}

std::string to_markdown(const Table& table) {
  std::string out = markdown(overview(table));
  for (std::size_t s = 0; s < table.suites.size(); ++s) out += fmt::format("\n{}", markdown(detail(table, s)));
  return fmt::format("{}\n{}", out, legend(table));
}

std::string to_json(const Table& table) {
  nlohmann::json out;
  out["baseline"] = table.baseline;
  for (std::size_t s = 0; s < table.suites.size(); ++s) {
    out["suites"].push_back({{"name", table.suites[s].name},
                             {"file", table.suites[s].pattern},
                             {"protocol", table.suites[s].protocol_text},
                             {"tokens", table.suite_tokens[s]},
                             {"hash", table.suite_hashes[s]}});
  }
  for (const auto& row : table.rows) {
    nlohmann::json scores;
    for (std::size_t s = 0; s < row.scores.size(); ++s) {
      const auto& score = row.scores[s];
      nlohmann::json entry = {{"tokens", score.n_tokens}, {"loss", to_json(score.loss)}, {"kld", to_json(score.kld)}, {"kld_p90", score.kld_p90},
                              {"kld_p99", score.kld_p99}, {"kld_max", score.kld_max}, {"same_top", to_json(score.top1_agreement)},
                              {"rms_delta_p", score.rms_delta_p}};
      if (score.has_gap_recovery) entry["gap_recovery"] = to_json(score.gap_recovery);
      scores[table.suites[s].name] = entry;
    }
    out["models"].push_back({{"name", row.name}, {"path", row.path}, {"hash", row.hash}, {"file_bpw", row.file_bpw}, {"matrix_bpw", row.matrix_bpw},
                             {"mebibytes", row.mebibytes}, {"strict", row.strict}, {"reference", row.is_reference}, {"scores", scores}});
  }
  return out.dump(2) + "\n";
}

}  // namespace spectralquant::evaluate
