#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/legacy_blocks.h"

namespace spectralquant::format {
namespace {

constexpr int kBias = -Q5_0::kLowestCode;  // codes are stored with it added

}  // namespace

SuperBlock Q5_0::unpack(const std::byte* bytes) {
  gguf::BlockQ5_0 block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.scales[0] = 1;
  for (int i = 0; i < kBlock; ++i) {
    const int low = block.qs[i % 16] >> (4 * (i / 16)) & 15, fifth = block.qh[i / 8] >> (i % 8) & 1;
    values.codes[i] = static_cast<std::int8_t>((low | fifth << 4) - kBias);
  }
  return values;
}

void Q5_0::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ5_0 block{};
  block.d = values.d;
  for (int i = 0; i < kBlock; ++i) {
    const int code = values.codes[i] + kBias;
    std::uint8_t &low = block.qs[i % 16], &fifth = block.qh[i / 8];
    low = static_cast<std::uint8_t>(low | (code & 15) << (4 * (i / 16)));
    fifth = static_cast<std::uint8_t>(fifth | code >> 4 << (i % 8));
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock Q5_0::round(const float* x, const float* importance, float mean_square) {
  return round_without_scales<Q5_0>(x, importance, mean_square);
}

}  // namespace spectralquant::format
