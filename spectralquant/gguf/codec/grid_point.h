#pragma once
#include <bit>
#include <cstdint>

namespace spectralquant::gguf::codec {

/// The 2-, 3- and 1-bit IQ formats name points of a grid; this spells one out: kBits a value, the
/// first in the lowest bits.
template <int kValues, int kBits, class Level>
inline void unpack_point(std::uint16_t point, const Level levels[], float* values) {
  for (int i = 0; i < kValues; ++i) values[i] = levels[point >> (kBits * i) & ((1 << kBits) - 1)];
}

/// Eight sign bits of which seven are stored: the eighth makes the number of minus signs even.
inline std::uint8_t even_signs(std::uint32_t seven_bits) {
  return static_cast<std::uint8_t>(seven_bits | (std::popcount(seven_bits) & 1) << 7);
}

/// value = scale · level, minus where the bit of `signs` is set
inline void scale_with_signs(float scale, std::uint8_t signs, int n, const float* level,
                             float* values) {
  for (int i = 0; i < n; ++i) values[i] = scale * level[i] * (signs >> i & 1 ? -1.f : 1.f);
}

}  // namespace spectralquant::gguf::codec
