#include "spectralquant/pipeline/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::pipeline {
namespace {

std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // NaN stays NaN
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// 32 values: fp16 scale, then 32 signed bytes.
void encode_q8_0(const float* values, std::byte* out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[i]));
  const float scale = largest / 127.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
  const std::uint16_t half = gguf::float_to_half(scale);
  std::memcpy(out, &half, sizeof half);
  for (int i = 0; i < 32; ++i)
    out[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::round(values[i] * inverse)));
}

}  // namespace

std::vector<std::byte> encode(gguf::Type type, const float* values, std::size_t n) {
  const gguf::TypeTraits& layout = gguf::traits(type);
  std::vector<std::byte> out(n / layout.block_values * layout.block_bytes);
  switch (type) {
    case gguf::Type::F32:
      std::memcpy(out.data(), values, out.size());
      return out;
    case gguf::Type::F16:
    case gguf::Type::BF16:
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint16_t bits =
            type == gguf::Type::F16 ? gguf::float_to_half(values[i]) : float_to_bfloat16(values[i]);
        std::memcpy(out.data() + 2 * i, &bits, sizeof bits);
      }
      return out;
    case gguf::Type::Q8_0:
      for (std::size_t i = 0; i < n / 32; ++i) encode_q8_0(values + 32 * i, out.data() + 34 * i);
      return out;
    default:
      throw Error(ErrorCode::kBadUsage,
                  fmt::format("{} cannot be written as a fallback type", layout.name), {},
                  "use F32, F16, BF16 or Q8_0");
  }
}

}  // namespace spectralquant::pipeline
