#include "spectralquant/evaluate/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace spectralquant::evaluate {
namespace {

constexpr const char* kNotFinite = "not finite";

/// Size of a row's file; stored predictions are no model's size.
std::vector<Cell> head_cells(const Row& row) {
  if (row.is_stored) return {row.name, "–", "–"};
  return {row.name, fmt::format("{:.2f}", row.file_bpw), fmt::format("{:.2f}", row.mebibytes())};
}

std::string percent(const Interval& i) { return fmt::format("{:.1f} %", 100 * i.mean); }

std::string gap(const Row& row, const Score& score) {
  if (row.is_reference) return "100 %";
  if (row.is_baseline) return "0 %";
  if (!score.has_gap_recovery || !std::isfinite(score.gap_recovery.mean)) return "–";
  return percent(score.gap_recovery);
}

/// From the loss to "same top".
std::vector<Cell> score_cells(const Row& row, const Score& s,
                              const std::function<bool(const char*)>& is_best) {
  constexpr std::size_t kColumns = 9;
  std::vector<Cell> cells;
  if (s.is_finite()) {
    const bool below = !row.is_reference && s.loss_change.high < 0;
    cells.emplace_back(fmt::format("{:.4f}{}", s.loss.mean, below ? "↓" : ""), is_best("loss"));
    cells.emplace_back(fmt::format("{:.3f}–{:.3f}", s.loss.low, s.loss.high));
  } else {
    cells = {kNotFinite, "–", kNotFinite};
  }
  if (s.is_finite() && !row.is_reference) {
    cells.emplace_back(fmt::format("{:.4f}", s.kld.mean), is_best("kld"));
    cells.emplace_back(fmt::format("{:.4f}–{:.4f}", s.kld.low, s.kld.high));
    cells.emplace_back(fmt::format("{:.4f}", s.kld_p90), is_best("kld_p90"));
    cells.emplace_back(fmt::format("{:.4f}", s.kld_p99), is_best("kld_p99"));
    cells.emplace_back(fmt::format("{:.3f}", s.kld_max), is_best("kld_max"));
    cells.emplace_back(fmt::format("{:.2f} %", 100 * s.rms_delta_p), is_best("rms_delta_p"));
    cells.emplace_back(percent(s.top1_agreement), is_best("same_top"));
  }
  while (cells.size() < kColumns) cells.emplace_back("–");
  return cells;
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
    std::vector<Cell> cells = head_cells(row);
    for (std::size_t s = 0; s < table.suites.size(); ++s) {
      const auto& score = row.scores[s];
      if (!score.is_finite()) {
        cells.insert(cells.end(), {kNotFinite, kNotFinite});
        continue;
      }
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
    std::vector<Cell> cells = head_cells(row);
    const auto is_best = [&](const char* key) { return best[key] == r; };
    for (auto& cell : score_cells(row, row.scores[suite], is_best))
      cells.push_back(std::move(cell));
    if (!table.baseline.empty()) {
      const auto& recovery = row.scores[suite].gap_recovery;
      const bool shown = !row.is_reference && !row.is_baseline &&
                         row.scores[suite].has_gap_recovery && std::isfinite(recovery.low);
      cells.emplace_back(gap(row, row.scores[suite]), is_best("gap_recovery"));
      cells.emplace_back(
          shown ? fmt::format("{:.0f}–{:.0f} %", 100 * recovery.low, 100 * recovery.high) : "–");
    }
    grid.rows.push_back(std::move(cells));
  }
  return grid;
}

}  // namespace spectralquant::evaluate
