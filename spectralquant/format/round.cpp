#include "spectralquant/format/round.h"

#include "spectralquant/core/parallel.h"

namespace spectralquant::format {

GridMatrix round_like_llama(const Grid& grid, const float* weights, std::int64_t rows,
                            std::int64_t cols, const float* importance, int n_threads) {
  GridMatrix matrix(grid, rows, cols);
  const std::int64_t width = grid.super_block, blocks = cols / width;
  with_format(grid, [&](auto format) {
    parallel_for(static_cast<std::size_t>(rows), n_threads, [&](std::size_t row) {
      for (std::int64_t b = 0; b < blocks; ++b) {
        const std::int64_t index = static_cast<std::int64_t>(row) * blocks + b;
        matrix.put(index, format.round(weights + index * width,
                                       importance ? importance + b * width : nullptr));
      }
    });
  });
  return matrix;
}

}  // namespace spectralquant::format
