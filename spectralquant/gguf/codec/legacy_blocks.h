#pragma once
#include <cstdint>

namespace spectralquant::gguf {

// Formats of 32 values without super-blocks as ggml stores them, little-endian. Four bits of the
// first 16 values lie in the low halves of `qs`, those of the last 16 in the high halves; a fifth
// bit, where there is one, is bit i of `qh`.

/// value[i] = d * (q[i] - 8)
struct BlockQ4_0 {
  std::uint16_t d;
  std::uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

/// value[i] = d * (q[i] - 16), q of five bits
struct BlockQ5_0 {
  std::uint16_t d;
  std::uint8_t qh[4], qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

/// value[i] = d * q[i]
struct BlockQ8_0 {
  std::uint16_t d;
  std::int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

}  // namespace spectralquant::gguf
