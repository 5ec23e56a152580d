#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/evaluate/grid.h"
#include "spectralquant/evaluate/overlap.h"
#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

/// One row: a file and its scores, one per suite. A reference whose predictions were stored is no
/// model file: it has a name, a path, a hash and scores.
struct Row {
  std::string name, path, hash;
  std::uint64_t size_bytes = 0;
  double file_bpw = 0, matrix_bpw = 0;
  std::map<std::string, std::uint64_t> types;  ///< weights by tensor type
  bool strict = false;                         ///< every matrix Q4_K
  bool is_reference = false, is_baseline = false, is_stored = false;
  std::vector<Score> scores;  ///< in the order of Table::suites

  double mebibytes() const { return static_cast<double>(size_bytes) / (1 << 20); }
};

struct Table {
  std::vector<SuiteSpec> suites;
  std::vector<std::int64_t> suite_tokens, suite_units;
  std::vector<std::string> suite_hashes;
  std::vector<std::optional<Seen>> suite_seen;  ///< none where no calibration text is known
  std::vector<Row> rows;
  std::string baseline;  ///< name of the row gap recovery is measured against, "" if none
};

/// The reference first, then by size, then by name.
bool comes_before(const Row& a, const Row& b);

/// A figure of Score by which candidates are ranked.
struct Column {
  std::string key;  ///< as in JSON
  bool lower_is_better = true;
  std::function<std::optional<double>(const Score&)> value;
};
/// loss, kld, kld_p90, kld_p99, kld_max, rms_delta_p, same_top, gap_recovery.
const std::vector<Column>& ranked_columns();

/// The best candidate of a column, the first of equals; none with fewer than two candidates that
/// have a value.
std::optional<std::size_t> best_row(const Table& table, std::size_t suite, const Column& column);

Grid overview(const Table& table);                       ///< size, loss and KLD on every suite
Grid suite_grid(const Table& table, std::size_t suite);  ///< all figures of one suite

}  // namespace spectralquant::evaluate
