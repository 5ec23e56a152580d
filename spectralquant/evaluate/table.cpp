#include "spectralquant/evaluate/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace spectralquant::evaluate {
namespace {

std::string percent(const Interval& i) { return fmt::format("{:.1f} %", 100 * i.mean); }

std::string gap(const Row& row, const Score& score) {
  if (row.is_reference) return "100 %";
  if (row.is_baseline) return "0 %";
  if (!score.has_gap_recovery || !std::isfinite(score.gap_recovery.mean)) return "–";
  return percent(score.gap_recovery);
}

std::optional<std::size_t> best_by(const Table& table, bool lower_is_better,
                                   const std::function<std::optional<double>(const Row&)>& value) {
  std::optional<std::size_t> best;
  double best_value = 0;
  int n = 0;
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    if (table.rows[r].is_reference) continue;
    const auto v = value(table.rows[r]);
    if (!v || !std::isfinite(*v)) continue;
    ++n;
    if (!best || (lower_is_better ? *v < best_value : *v > best_value)) best = r, best_value = *v;
  }
  return n < 2 ? std::nullopt : best;
}

}  // namespace

bool comes_before(const Row& a, const Row& b) {
  const auto key = [](const Row& r) { return std::tuple(!r.is_reference, r.size_bytes, r.name); };
  return key(a) < key(b);
}

const std::vector<Column>& ranked_columns() {
  static const std::vector<Column> kColumns = {
      {"loss", true, [](const Score& s) { return s.loss.mean; }},
      {"kld", true, [](const Score& s) { return s.kld.mean; }},
      {"kld_p90", true, [](const Score& s) { return s.kld_p90; }},
      {"kld_p99", true, [](const Score& s) { return s.kld_p99; }},
      {"kld_max", true, [](const Score& s) { return s.kld_max; }},
      {"rms_delta_p", true, [](const Score& s) { return s.rms_delta_p; }},
      {"same_top", false, [](const Score& s) { return s.top1_agreement.mean; }},
      {"gap_recovery", false,
       [](const Score& s) {
         return s.has_gap_recovery ? std::optional(s.gap_recovery.mean) : std::nullopt;
       }},
  };
  return kColumns;
}

std::optional<std::size_t> best_row(const Table& table, std::size_t suite, const Column& column) {
  return best_by(table, column.lower_is_better,
                 [&](const Row& row) { return column.value(row.scores[suite]); });
}

Grid overview(const Table& table) {
  Grid grid;
  grid.head = {"model", "BPW", "MiB"};
  for (const auto& suite : table.suites)
    grid.head.push_back(suite.name + " loss"), grid.head.push_back("KLD");
  const auto& columns = ranked_columns();
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    const auto& row = table.rows[r];
    std::vector<Cell> cells = {row.name, fmt::format("{:.2f}", row.file_bpw),
                               fmt::format("{:.2f}", row.mebibytes())};
    for (std::size_t s = 0; s < table.suites.size(); ++s) {
      const auto& score = row.scores[s];
      cells.emplace_back(fmt::format("{:.4f}", score.loss.mean),
                         best_row(table, s, columns[0]) == r);
      cells.emplace_back(row.is_reference ? "–" : fmt::format("{:.4f}", score.kld.mean),
                         best_row(table, s, columns[1]) == r);
    }
    grid.rows.push_back(std::move(cells));
  }
  return grid;
}

Grid suite_grid(const Table& table, std::size_t suite) {
  const auto& spec = table.suites[suite];
  const auto& seen = table.suite_seen[suite];
  Grid grid;
  grid.title = fmt::format("{} ({}, {} tokens{}{})", spec.name, spec.protocol_text,
                           table.suite_tokens[suite], seen ? ", " : "",
                           seen ? name_of(*seen) : std::string_view());
  grid.head = {"model", "BPW",  "MiB",  "loss", "95 %",   "KLD",
               "95 %",  "90 %", "99 %", "max",  "RMS Δp", "same top"};
  if (!table.baseline.empty()) grid.head.insert(grid.head.end(), {"gap recovery", "95 %"});
  std::map<std::string, std::optional<std::size_t>> best;
  for (const auto& column : ranked_columns()) best[column.key] = best_row(table, suite, column);
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    const auto& row = table.rows[r];
    const auto& s = row.scores[suite];
    const auto cell = [&](const char* key, std::string text) {
      return Cell(std::move(text), best[key] == r);
    };
    const bool below = !row.is_reference && s.loss_change.high < 0;
    std::vector<Cell> cells = {row.name, fmt::format("{:.2f}", row.file_bpw),
                               fmt::format("{:.2f}", row.mebibytes()),
                               cell("loss", fmt::format("{:.4f}{}", s.loss.mean, below ? "↓" : "")),
                               fmt::format("{:.3f}–{:.3f}", s.loss.low, s.loss.high)};
    if (row.is_reference) {
      for (int i = 0; i < 7; ++i) cells.emplace_back("–");
    } else {
      cells.push_back(cell("kld", fmt::format("{:.4f}", s.kld.mean)));
      cells.emplace_back(fmt::format("{:.4f}–{:.4f}", s.kld.low, s.kld.high));
      cells.push_back(cell("kld_p90", fmt::format("{:.4f}", s.kld_p90)));
      cells.push_back(cell("kld_p99", fmt::format("{:.4f}", s.kld_p99)));
      cells.push_back(cell("kld_max", fmt::format("{:.3f}", s.kld_max)));
      cells.push_back(cell("rms_delta_p", fmt::format("{:.2f} %", 100 * s.rms_delta_p)));
      cells.push_back(cell("same_top", percent(s.top1_agreement)));
    }
    if (!table.baseline.empty()) {
      const bool shown = !row.is_reference && !row.is_baseline && s.has_gap_recovery &&
                         std::isfinite(s.gap_recovery.low);
      cells.push_back(cell("gap_recovery", gap(row, s)));
      cells.emplace_back(shown ? fmt::format("{:.0f}–{:.0f} %", 100 * s.gap_recovery.low,
                                             100 * s.gap_recovery.high)
                               : "–");
    }
    grid.rows.push_back(std::move(cells));
  }
  return grid;
}

}  // namespace spectralquant::evaluate
