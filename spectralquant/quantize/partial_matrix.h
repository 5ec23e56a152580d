#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "spectralquant/format/grid_matrix.h"

namespace spectralquant::quantize {

/// A matrix of which some columns stand on the grid of its format, while the others are still real
/// numbers.
///
/// A block's scale and min, and a super-block's d and dmin, hold from the moment its first column
/// is fixed.
/// Shapes   weight, code: [rows, cols]; scale, min: [rows, cols / block]; d, dmin:
///          [rows, cols / super-block]. weight, d, dmin: float32, d and dmin exact fp16 numbers;
///          the others int8. All on one device. min and dmin are zeros in a format without mins.
struct PartialMatrix {
  const format::Grid* grid = nullptr;
  torch::Tensor weight;  ///< what the model computes with: decoded values where a column is fixed
  torch::Tensor code;    ///< 0 where a column is not fixed
  torch::Tensor scale, min, d, dmin;
  torch::Tensor fixed;          ///< [cols]: 1 where a column is fixed
  torch::Tensor level_of_code;  ///< [codes]; undefined where levels are evenly spaced

  PartialMatrix() = default;
  /// Nothing fixed yet. weight: [rows, cols] float32, kept, not copied. `of` must outlive it.
  /// Errors   Error(kBadInput) if the columns are not whole super-blocks.
  PartialMatrix(const format::Grid& of, torch::Tensor weight);

  std::int64_t rows() const { return weight.size(0); }
  std::int64_t cols() const { return weight.size(1); }
  bool all_fixed() const;
  /// Values of the fixed columns as the decoder computes them, bit for bit; the other columns of
  /// the result mean nothing. [rows, cols]
  torch::Tensor decode() const;
  /// What the codes stand for, in units of their steps; 0 where a column is not fixed. [rows, cols]
  torch::Tensor levels() const;
  /// Writes decode() into the fixed columns of weight.
  void put_decoded();
  /// All columns become those of `matrix`, which has the same format and shape.
  void stand_on(const format::GridMatrix& matrix);
  /// These columns are real numbers again, for now those they stood on.
  void release(const std::vector<std::int64_t>& columns);
  /// The matrix in the format's own numbers. All columns have to be fixed.
  format::GridMatrix matrix() const;
};

}  // namespace spectralquant::quantize
