#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/legacy_blocks.h"

namespace spectralquant::format {
namespace {

constexpr int kBias = -Q4_0::kLowestCode;  // codes are stored with it added

}  // namespace

SuperBlock Q4_0::unpack(const std::byte* bytes) {
  gguf::BlockQ4_0 block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.scales[0] = 1;
  for (int i = 0; i < 16; ++i) {
    values.codes[i] = static_cast<std::int8_t>((block.qs[i] & 15) - kBias);
    values.codes[16 + i] = static_cast<std::int8_t>((block.qs[i] >> 4) - kBias);
  }
  return values;
}

void Q4_0::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ4_0 block;
  block.d = values.d;
  for (int i = 0; i < 16; ++i) {
    block.qs[i] =
        static_cast<std::uint8_t>((values.codes[i] + kBias) | (values.codes[16 + i] + kBias) << 4);
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock Q4_0::round(const float* x, const float* importance, float mean_square) {
  return round_without_scales<Q4_0>(x, importance, mean_square);
}

}  // namespace spectralquant::format
