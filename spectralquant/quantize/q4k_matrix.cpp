#include "spectralquant/quantize/q4k_matrix.h"

#include <cstring>
#include <string>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::quantize {
namespace {

constexpr std::int64_t kSuper = 256, kBlock = 32, kBlocks = kSuper / kBlock;

}  // namespace

Q4KMatrix::Q4KMatrix(std::int64_t rows, std::int64_t cols) : rows(rows), cols(cols) {
  if (rows < 0 || cols < 0 || cols % kSuper != 0) {
    throw bad_input("a matrix of " + std::to_string(rows) + " rows and " + std::to_string(cols) +
                        " columns cannot be Q4_K",
                    {}, "Q4_K needs a multiple of 256 columns");
  }
  const std::size_t n = static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
  code.resize(n);
  scale.resize(n / kBlock);
  min.resize(n / kBlock);
  d.resize(n / kSuper);
  dmin.resize(n / kSuper);
}

void Q4KMatrix::decode(std::int64_t first, std::int64_t n, float* out) const {
  const std::int64_t end = (first + n) * cols / kBlock;
  for (std::int64_t block = first * cols / kBlock; block < end; ++block, out += kBlock) {
    const std::int64_t super = block / kBlocks;
    const float step = gguf::half_to_float(d[super]) * scale[block];
    const float offset = gguf::half_to_float(dmin[super]) * min[block];
    const std::uint8_t* codes = code.data() + block * kBlock;
    for (std::int64_t i = 0; i < kBlock; ++i) out[i] = step * codes[i] - offset;
  }
}

void Q4KMatrix::put(std::int64_t index, const gguf::UnpackedQ4K& values) {
  d[index] = values.d;
  dmin[index] = values.dmin;
  std::memcpy(scale.data() + index * kBlocks, values.scale, kBlocks);
  std::memcpy(min.data() + index * kBlocks, values.min, kBlocks);
  std::memcpy(code.data() + index * kSuper, values.code, kSuper);
}

std::vector<gguf::BlockQ4K> Q4KMatrix::to_blocks(int n_threads) const {
  std::vector<gguf::BlockQ4K> blocks(d.size());
  const std::size_t row_blocks = static_cast<std::size_t>(cols / kSuper);
  parallel_for(static_cast<std::size_t>(rows), n_threads, [&](std::size_t row) {
    gguf::UnpackedQ4K values;
    for (std::size_t i = row * row_blocks; i < (row + 1) * row_blocks; ++i) {
      values.d = d[i];
      values.dmin = dmin[i];
      std::memcpy(values.scale, scale.data() + i * kBlocks, kBlocks);
      std::memcpy(values.min, min.data() + i * kBlocks, kBlocks);
      std::memcpy(values.code, code.data() + i * kSuper, kSuper);
      blocks[i] = gguf::pack(values);
    }
  });
  return blocks;
}

Q4KMatrix Q4KMatrix::from_blocks(const gguf::BlockQ4K* blocks, std::int64_t rows,
                                 std::int64_t cols) {
  Q4KMatrix matrix(rows, cols);
  for (std::size_t i = 0; i < matrix.d.size(); ++i) {
    gguf::BlockQ4K block;
    // may be unaligned: mapped
    std::memcpy(&block, reinterpret_cast<const char*>(blocks) + i * sizeof block, sizeof block);
    matrix.put(static_cast<std::int64_t>(i), gguf::unpack(block));
  }
  return matrix;
}

}  // namespace spectralquant::quantize
