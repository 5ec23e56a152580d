#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::format {

SuperBlock Q5_K::unpack(const std::byte* bytes) {
  gguf::BlockQ5K block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.dmin = block.dmin;
  std::uint8_t scales[kBlocks], mins[kBlocks];
  gguf::codec::unpack_scales(block.scales, scales, mins);
  std::copy_n(scales, kBlocks, values.scales);
  std::copy_n(mins, kBlocks, values.mins);
  for (int b = 0; b < kBlocks; ++b) {
    const std::uint8_t* low = block.qs + 32 * (b / 2);
    for (int i = 0; i < kBlock; ++i) {
      values.codes[b * kBlock + i] =
          static_cast<std::int8_t>((low[i] >> 4 * (b % 2) & 15) | (block.qh[i] >> b & 1) << 4);
    }
  }
  return values;
}

void Q5_K::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ5K block{};
  block.d = values.d;
  block.dmin = values.dmin;
  std::uint8_t scales[kBlocks], mins[kBlocks];
  std::copy_n(values.scales, kBlocks, scales);
  std::copy_n(values.mins, kBlocks, mins);
  gguf::codec::pack_scales(scales, mins, block.scales);
  for (int b = 0; b < kBlocks; ++b) {
    std::uint8_t* low = block.qs + 32 * (b / 2);
    for (int i = 0; i < kBlock; ++i) {
      const int code = values.codes[b * kBlock + i];
      low[i] = static_cast<std::uint8_t>(low[i] | (code & 15) << 4 * (b % 2));
      block.qh[i] = static_cast<std::uint8_t>(block.qh[i] | code >> 4 << b);
    }
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock Q5_K::round(const float* x, const float* importance, float /*mean_square*/) {
  return round_with_mins<Q5_K>(x, importance,
                               {.plain = {-0.5f, 0.1f, 15}, .variance = 2, .wraps = false});
}

}  // namespace spectralquant::format
