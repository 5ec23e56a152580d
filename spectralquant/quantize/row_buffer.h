#pragma once
#include <cstdint>
#include <vector>

#include "spectralquant/quantize/q4k_matrix.h"
#include "spectralquant/quantize/row_solver.h"

namespace spectralquant::quantize {

/// One row of a Q4KMatrix taken out for work: cells as the kernels want them, and room for the
/// gradient.
class RowBuffer {
 public:
  /// factored: with room for the row's own block factors (tied embeddings, where every row has its
  /// own moment).
  RowBuffer(std::int64_t cols, bool factored);

  /// Takes row r of the matrix. Super-scales that overflowed fp16 come as the largest finite
  /// number.
  void load(const Q4KMatrix& matrix, std::int64_t r);
  void store(Q4KMatrix& matrix, std::int64_t r) const;

  /// For the kernels; blocks points to own_blocks() when factored, else it is the caller's to set.
  RowWork work();
  float* m() { return m_.data(); }
  const float* value() const { return value_.data(); }
  BlockFactors* own_blocks() { return blocks_.data(); }

 private:
  std::vector<float> m_, value_, code_, d_, dmin_;
  std::vector<std::uint8_t> scale_, min_;
  std::vector<BlockFactors> blocks_;
};

}  // namespace spectralquant::quantize
