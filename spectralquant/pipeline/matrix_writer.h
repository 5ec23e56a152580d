#pragma once
#include <torch/types.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/matrix.h"
#include "spectralquant/gguf/writer.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// Throws if rows that were rounded do not decode to finite numbers: no scale can hold such
/// weights, or the importance they were rounded with was out of range. llama-quantize refuses the
/// same rows.
///
/// rounded   rows from first_row of source on, in their new type
/// Errors    Error(kBadInput) naming tensor, row and weight
void require_finite_rows(const gguf::Tensor& source, std::uint64_t first_row,
                         const gguf::Tensor& rounded, const std::string& file_path);

/// The output file while its matrices arrive one by one, in any order. Without a name for the
/// output (where another process writes it) it only keeps account of what would be written.
class MatrixWriter {
 public:
  MatrixWriter(const gguf::File& input, const quantize::Plan& plan, const gguf::Metadata& metadata,
               const QuantizeOptions& options);

  /// Source of a matrix that is to be quantized; nullopt for any other id.
  std::optional<gguf::Matrix> find(const gguf::MatrixId& id) const;
  /// Matrices to be quantized, in file order, those of a stack by slice.
  const std::vector<gguf::Matrix>& matrices() const { return matrices_; }
  bool has(const gguf::MatrixId& id) const;  ///< its first rows were written
  /// The format that the matrices of this tensor get.
  const format::Grid& grid_of(std::string_view tensor) const;

  /// Errors   Error(kBadInput) naming tensor, row and weight if the rows do not decode to finite
  ///          numbers.
  void write(const gguf::Matrix& matrix, std::int64_t first_row_of_matrix,
             const format::GridMatrix& rows);
  /// everything but the matrices: copied, or turned into F32 or the fallback type
  void write_rest();
  void commit();

 private:
  const quantize::Plan& plan_;
  std::string input_path_;
  std::optional<gguf::Writer> writer_;
  std::map<std::string, std::size_t, std::less<>> index_;  ///< of their tensors, in the file
  std::vector<gguf::Matrix> matrices_;
  std::set<gguf::MatrixId> written_;
};

}  // namespace spectralquant::pipeline
