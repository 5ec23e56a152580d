#include "spectralquant/format/grid_matrix.h"

#include <algorithm>
#include <string>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::format {

GridMatrix::GridMatrix(const Grid& grid, std::int64_t rows, std::int64_t cols)
    : grid(&grid), rows(rows), cols(cols) {
  if (rows < 0 || cols < 0 || cols % grid.super_block != 0) {
    throw bad_input(
        "a matrix of " + std::to_string(rows) + " rows and " + std::to_string(cols) +
            " columns cannot be " + name_of(grid),
        {},
        name_of(grid) + " needs a multiple of " + std::to_string(grid.super_block) + " columns");
  }
  const std::size_t n = static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
  const auto block = static_cast<std::size_t>(grid.block),
             super_block = static_cast<std::size_t>(grid.super_block);
  codes.resize(n);
  scales.resize(n / block);
  d.resize(n / super_block);
  if (!grid.has_min()) return;
  mins.resize(n / block);
  dmin.resize(n / super_block);
}

void GridMatrix::decode(std::int64_t first, std::int64_t n, float* out) const {
  const int width = grid->block, blocks = grid->blocks();
  const std::int64_t end = (first + n) * cols / width;
  for (std::int64_t block = first * cols / width; block < end; ++block, out += width) {
    const std::int64_t super = block / blocks;
    const float step = gguf::half_to_float(d[super]) * scales[block];
    const float offset = grid->has_min() ? gguf::half_to_float(dmin[super]) * mins[block] : 0.f;
    const std::int8_t* code = codes.data() + block * width;
    if (grid->levels) {
      for (int i = 0; i < width; ++i)
        out[i] = step * static_cast<float>(grid->level(code[i])) - offset;
    } else {
      for (int i = 0; i < width; ++i) out[i] = step * code[i] - offset;
    }
  }
}

void GridMatrix::put(std::int64_t index, const SuperBlock& values) {
  const int blocks = grid->blocks();
  d[index] = values.d;
  std::copy_n(values.scales, blocks, scales.data() + index * blocks);
  std::copy_n(values.codes, grid->super_block, codes.data() + index * grid->super_block);
  if (!grid->has_min()) return;
  dmin[index] = values.dmin;
  std::copy_n(values.mins, blocks, mins.data() + index * blocks);
}

void GridMatrix::copy_rows(const GridMatrix& from, std::int64_t first, std::int64_t n,
                           std::int64_t to) {
  const auto copy = [&](const auto& source, auto& target) {
    const std::int64_t each = from.rows > 0 ? std::ssize(source) / from.rows : 0;
    std::copy_n(source.begin() + first * each, n * each, target.begin() + to * each);
  };
  copy(from.codes, codes);
  copy(from.scales, scales);
  copy(from.mins, mins);
  copy(from.d, d);
  copy(from.dmin, dmin);
}

std::vector<std::byte> GridMatrix::to_bytes(int n_threads) const {
  if (d.empty()) return {};
  const std::size_t block_bytes = gguf::traits(grid->type).block_bytes,
                    row_blocks = static_cast<std::size_t>(cols / grid->super_block);
  const int blocks = grid->blocks();
  std::vector<std::byte> bytes(d.size() * block_bytes);
  with_format(*grid, [&](auto format) {
    parallel_for(static_cast<std::size_t>(rows), n_threads, [&](std::size_t row) {
      SuperBlock values;
      for (std::size_t i = row * row_blocks; i < (row + 1) * row_blocks; ++i) {
        values.d = d[i];
        std::copy_n(scales.data() + i * blocks, blocks, values.scales);
        std::copy_n(codes.data() + i * grid->super_block, grid->super_block, values.codes);
        if (grid->has_min()) {
          values.dmin = dmin[i];
          std::copy_n(mins.data() + i * blocks, blocks, values.mins);
        }
        format.pack(values, bytes.data() + i * block_bytes);
      }
    });
  });
  return bytes;
}

GridMatrix GridMatrix::from_bytes(const Grid& grid, const std::byte* bytes, std::int64_t rows,
                                  std::int64_t cols) {
  GridMatrix matrix(grid, rows, cols);
  const std::size_t block_bytes = gguf::traits(grid.type).block_bytes;
  with_format(grid, [&](auto format) {
    for (std::size_t i = 0; i < matrix.d.size(); ++i)
      matrix.put(static_cast<std::int64_t>(i), format.unpack(bytes + i * block_bytes));
  });
  return matrix;
}

}  // namespace spectralquant::format
