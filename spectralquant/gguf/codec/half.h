#pragma once
#include <bit>
#include <cstdint>

namespace spectralquant::gguf {

/// IEEE binary16 to float32, exact; subnormals, infinities and NaN included. Free of branches, so
/// that loops vectorize.
inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t shifted = static_cast<std::uint32_t>(h & 0x7fffu) << 13;
  const std::uint32_t normal = shifted + (112u << 23);  // exponent bias 15 to 127
  // Infinity and NaN keep their mantissa; NaN is made quiet, as IEEE conversions do.
  const std::uint32_t special =
      shifted | 0x7f800000u | ((h & 0x7fffu) > 0x7c00u ? 0x00400000u : 0u);
  // A subnormal of mantissa m is m * 2^-24 = 2^-14 (1 + m / 1024) - 2^-14, and that difference is
  // exact.
  const float subnormal = std::bit_cast<float>(shifted + (113u << 23)) - 0x1p-14f;
  const std::uint32_t small = (h & 0x7c00u) == 0 ? std::bit_cast<std::uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(sign | ((h & 0x7c00u) == 0x7c00u ? special : small));
}

/// float32 to IEEE binary16, rounded to nearest even; overflow gives infinity, NaN stays NaN.
inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint16_t sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above round to infinity
  // below 2^-14: subnormal half, in units of 2^-24
  if (magnitude < 0x38800000u) {
    // 2^-1 has ulp 2^-24: the adder rounds to even
    const float scaled = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(scaled) - 0x3f000000u);
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<std::uint16_t>((rounded - 0x38000000u) >> 13);
}

/// bfloat16 to float32, exact.
inline float bfloat16_to_float(std::uint16_t b) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16);
}

}  // namespace spectralquant::gguf
