#pragma once
#include <string>
#include <vector>

#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

/// One row: a file and its scores, one per suite.
struct Row {
  std::string name, path, hash;
  double file_bpw = 0, matrix_bpw = 0, mebibytes = 0;
  bool strict = false;        ///< every matrix Q4_K
  bool is_reference = false, is_baseline = false;
  std::vector<Score> scores;  ///< in the order of Table::suites
};

struct Table {
  std::vector<SuiteSpec> suites;
  std::vector<std::int64_t> suite_tokens;
  std::vector<std::string> suite_hashes;
  std::vector<Row> rows;
  std::string baseline;  ///< name of the row gap recovery is measured against, "" if none
};

std::string to_terminal(const Table& table, int width, bool color);
std::string to_markdown(const Table& table);
std::string to_json(const Table& table);  ///< everything, intervals included

}  // namespace spectralquant::evaluate
