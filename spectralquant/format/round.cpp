#include "spectralquant/format/round.h"

#include <algorithm>
#include <vector>

#include "spectralquant/core/parallel.h"

namespace spectralquant::format {
namespace {

float mean_square(const float* x, std::int64_t n) {
  float sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum / static_cast<float>(n);
}

}  // namespace

GridMatrix round_like_llama(const Grid& grid, const float* weights, std::int64_t rows,
                            std::int64_t cols, const float* importance, int n_threads) {
  GridMatrix matrix(grid, rows, cols);
  const std::int64_t width = grid.super_block, blocks = cols / width;
  with_format(grid, [&](auto format) {
    parallel_for(static_cast<std::size_t>(rows), n_threads, [&](std::size_t row) {
      const std::int64_t first = static_cast<std::int64_t>(row) * blocks;
      const float of_row =
          importance && !grid.has_scales() ? mean_square(weights + first * width, cols) : 0.f;
      for (std::int64_t b = 0; b < blocks; ++b) {
        matrix.put(first + b, format.round(weights + (first + b) * width,
                                           importance ? importance + b * width : nullptr, of_row));
      }
    });
  });
  return matrix;
}

int columns_lost_without_importance(const Grid& grid) {
  std::vector<float> x(grid.super_block), importance(grid.super_block), value(grid.super_block);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
  for (const int n : {grid.block, grid.super_block}) {
    for (int i = 0; i < grid.super_block; ++i) importance[i] = i < n ? 0.f : 1.f;
    round_like_llama(grid, x.data(), 1, grid.super_block, importance.data(), 1)
        .decode(0, 1, value.data());
    if (std::all_of(value.begin(), value.begin() + n, [](float v) { return v == 0; })) return n;
  }
  return 0;
}

}  // namespace spectralquant::format
