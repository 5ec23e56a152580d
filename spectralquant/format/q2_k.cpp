#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::format {
namespace {

/// Where the codes of block b stand: see BlockQ2K.
int byte_of(int b) { return 32 * (b / 8) + 16 * (b % 2); }
int shift_of(int b) { return 2 * (b % 8 / 2); }

}  // namespace

SuperBlock Q2_K::unpack(const std::byte* bytes) {
  gguf::BlockQ2K block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.dmin = block.dmin;
  for (int b = 0; b < kBlocks; ++b) {
    values.scales[b] = static_cast<std::int8_t>(block.scales[b] & 15);
    values.mins[b] = static_cast<std::int8_t>(block.scales[b] >> 4);
    for (int i = 0; i < kBlock; ++i) {
      values.codes[b * kBlock + i] =
          static_cast<std::int8_t>(block.qs[byte_of(b) + i] >> shift_of(b) & 3);
    }
  }
  return values;
}

void Q2_K::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ2K block{};
  block.d = values.d;
  block.dmin = values.dmin;
  for (int b = 0; b < kBlocks; ++b) {
    const auto scale = static_cast<std::uint8_t>(values.scales[b]),
               min = static_cast<std::uint8_t>(values.mins[b]);
    block.scales[b] = static_cast<std::uint8_t>(scale | min << 4);
    for (int i = 0; i < kBlock; ++i) {
      std::uint8_t& byte = block.qs[byte_of(b) + i];
      byte = static_cast<std::uint8_t>(byte | values.codes[b * kBlock + i] << shift_of(b));
    }
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock Q2_K::round(const float* x, const float* importance, float /*mean_square*/) {
  return round_with_mins<Q2_K, /*kAbsolute=*/true>(
      x, importance, {.plain = {-0.5f, 0.1f, 15}, .variance = 1, .wraps = true});
}

}  // namespace spectralquant::format
