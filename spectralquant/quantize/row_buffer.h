#pragma once
#include <cstdint>
#include <vector>

#include "spectralquant/format/grid_matrix.h"
#include "spectralquant/quantize/row_solver.h"

namespace spectralquant::quantize {

/// One row of a GridMatrix taken out for work: cells as the kernels of shape F want them, and room
/// for the gradient.
template <class F>
class RowBuffer {
 public:
  /// factored: with room for the row's own block factors (tied embeddings, where every row has its
  /// own moment).
  RowBuffer(std::int64_t cols, bool factored);

  /// Takes row r of the matrix. Super-scales that overflowed fp16 come as the largest finite
  /// number.
  void load(const format::GridMatrix& matrix, std::int64_t r);
  void store(format::GridMatrix& matrix, std::int64_t r) const;

  /// For the kernels; blocks points to own_blocks() when factored, else it is the caller's to set.
  RowWork<F> work();
  float* m() { return m_.data(); }
  const float* value() const { return value_.data(); }
  BlockFactors<F>* own_blocks() { return blocks_.data(); }

 private:
  std::vector<float> m_, value_, code_, d_, dmin_;
  std::vector<std::int8_t> scale_, min_;
  std::vector<BlockFactors<F>> blocks_;
};

}  // namespace spectralquant::quantize
