#pragma once
#include <torch/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/writer.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// The output file while its matrices arrive one by one, in any order. Without a name for the
/// output (where another process writes it) it only keeps account of what would be written.
class MatrixWriter {
 public:
  MatrixWriter(const gguf::File& input, const quantize::Plan& plan, const gguf::Metadata& metadata,
               const QuantizeOptions& options);

  /// Source of a matrix that is to be quantized; nullptr for any other name.
  const gguf::Tensor* find(std::string_view name) const;
  /// Matrices to be quantized, in file order.
  const std::vector<const gguf::Tensor*>& matrices() const { return matrices_; }
  bool has(std::string_view name) const;  ///< its first rows were written
  /// The format of the matrix of this name.
  const format::Grid& grid_of(std::string_view name) const;

  /// Errors   Error(kBadInput) naming tensor, row and weight if the rows do not decode to finite
  ///          numbers.
  void write(const gguf::Tensor& source, std::uint64_t first_row, const format::GridMatrix& rows);
  /// everything but the matrices: copied, or turned into F32 or the fallback type
  void write_rest();
  void commit();

 private:
  const quantize::Plan& plan_;
  std::string input_path_;
  std::optional<gguf::Writer> writer_;
  std::map<std::string, std::size_t, std::less<>> index_;  ///< of matrices, in the file
  std::vector<const gguf::Tensor*> matrices_;
  std::map<std::string, bool, std::less<>> written_;
};

}  // namespace spectralquant::pipeline
