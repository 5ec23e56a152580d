#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "spectralquant/format/grid_matrix.h"
#include "spectralquant/pipeline/quantize_report.h"

namespace spectralquant::pipeline {

/// A matrix that is done, and what is to be reported of it.
struct SolvedMatrix {
  MatrixReport report;
  format::GridMatrix matrix;

  /// Bytes to keep or to send: a line of JSON (the report, and a hash of what follows), then the
  /// blocks as they stand in the file.
  std::string to_bytes() const;
  /// nullopt unless `bytes` are whole and of a matrix of this format, id and size.
  static std::optional<SolvedMatrix> from_bytes(std::string_view bytes, const format::Grid& grid,
                                                const gguf::MatrixId& id, std::int64_t rows,
                                                std::int64_t cols);
};

}  // namespace spectralquant::pipeline
