#pragma once
#include <cstdint>
#include <vector>

#include "spectralquant/gguf/codec/q4_k.h"

namespace spectralquant::quantize {

/// A quantized matrix: exactly what the decoder will see, never a float shadow.
///
/// value(r, c) = f16(d) · scale · code − f16(dmin) · min, with d, dmin per 256 columns, scale and
/// min per 32.
/// Shapes   code [rows × cols]; scale, min [rows × cols/32]; d, dmin [rows × cols/256], all
///          row-major.
struct Q4KMatrix {
  std::int64_t rows = 0, cols = 0;  ///< cols is a multiple of 256
  std::vector<std::uint8_t> code;   ///< 0..15
  std::vector<std::uint8_t> scale;  ///< 0..63
  std::vector<std::uint8_t> min;    ///< 0..63
  std::vector<std::uint16_t> d;     ///< fp16 bits
  std::vector<std::uint16_t> dmin;  ///< fp16 bits

  Q4KMatrix() = default;
  Q4KMatrix(std::int64_t rows, std::int64_t cols);  ///< zeros; Error(kBadInput) if cols % 256

  /// Values of rows [first, first + n), computed as the decoder does. out: n × cols floats.
  void decode(std::int64_t first, std::int64_t n, float* out) const;
  /// Stores super-block `index` = row · cols/256 + column/256.
  void put(std::int64_t index, const gguf::UnpackedQ4K& values);
  /// Bytes of the rows as they stand in the file: rows × cols/256 blocks.
  std::vector<gguf::BlockQ4K> to_blocks(int n_threads = 1) const;
  static Q4KMatrix from_blocks(const gguf::BlockQ4K* blocks, std::int64_t rows, std::int64_t cols);
};

}  // namespace spectralquant::quantize
