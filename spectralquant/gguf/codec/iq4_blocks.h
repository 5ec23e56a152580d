#pragma once
#include <cstdint>

namespace spectralquant::gguf {

// The IQ4 formats as ggml stores them, little-endian: codes name levels that are not evenly spaced.

/// The sixteen levels (kvalues_iq4nl of ggml).
inline constexpr std::int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

/// value[i] = d * level[code[i]]
struct BlockIQ4NL {
  std::uint16_t d;
  std::uint8_t qs[16];  ///< values 0..15 in the low halves, 16..31 in the high halves
};
static_assert(sizeof(BlockIQ4NL) == 18);

/// value[i] = d * (scale[i / 32] - 32) * level[code[i]], scale of six bits
struct BlockIQ4XS {
  std::uint16_t d;
  std::uint16_t scales_high;   ///< high two bits of the scale of block b at bit 2 b
  std::uint8_t scales_low[4];  ///< low four bits of it, two blocks a byte
  std::uint8_t qs[128];        ///< blocks of 32 values, each laid out as in IQ4_NL
};
static_assert(sizeof(BlockIQ4XS) == 136);

}  // namespace spectralquant::gguf
