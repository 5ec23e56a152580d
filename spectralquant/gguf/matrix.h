#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// Names one matrix of a model: a tensor, or one slice of a stack of matrices (an expert).
struct MatrixId {
  static constexpr std::int64_t kWhole = -1;  ///< the tensor is one matrix

  std::string tensor;
  std::int64_t slice = kWhole;

  MatrixId() = default;
  MatrixId(std::string tensor, std::int64_t slice = kWhole)
      : tensor(std::move(tensor)), slice(slice) {}
  MatrixId(const char* tensor) : tensor(tensor) {}

  std::strong_ordering operator<=>(const MatrixId&) const = default;
  bool operator==(const MatrixId&) const = default;

  /// "blk.3.ffn_up.weight", "blk.3.ffn_up_exps.weight[17]".
  std::string text() const;
  /// The id of such a text. No tensor to be quantized has a name that ends like a slice's.
  static MatrixId parse(std::string_view text);
};

/// Where one matrix lies in an open file.
struct Matrix {
  const Tensor* tensor = nullptr;
  std::int64_t slice = MatrixId::kWhole;

  MatrixId id() const { return {tensor->name, slice}; }
  std::int64_t rows() const;
  std::int64_t cols() const { return static_cast<std::int64_t>(tensor->n_cols()); }
  std::uint64_t n_values() const { return static_cast<std::uint64_t>(rows()) * tensor->n_cols(); }
  std::uint64_t first_row() const;  ///< of the tensor's rows
};

/// The matrices of a tensor: itself, or the slices of a stack.
std::vector<Matrix> matrices_of(const Tensor& tensor);

/// Errors   Error(kBadInput) naming the matrix if the file has none of this id.
Matrix require_matrix(const File& file, const MatrixId& id);

}  // namespace spectralquant::gguf
