#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::format {

SuperBlock Q4_K::unpack(const std::byte* bytes) {
  gguf::BlockQ4K block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.dmin = block.dmin;
  std::uint8_t scales[kBlocks], mins[kBlocks];
  gguf::codec::unpack_scales(block.scales, scales, mins);
  std::copy_n(scales, kBlocks, values.scales);
  std::copy_n(mins, kBlocks, values.mins);
  for (int pair = 0; pair < kBlocks / 2; ++pair) {
    const std::uint8_t* in = block.qs + 32 * pair;
    std::int8_t* code = values.codes + 64 * pair;
    for (int i = 0; i < 32; ++i) code[i] = static_cast<std::int8_t>(in[i] & 15);
    for (int i = 0; i < 32; ++i) code[32 + i] = static_cast<std::int8_t>(in[i] >> 4);
  }
  return values;
}

void Q4_K::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ4K block;
  block.d = values.d;
  block.dmin = values.dmin;
  std::uint8_t scales[kBlocks], mins[kBlocks];
  std::copy_n(values.scales, kBlocks, scales);
  std::copy_n(values.mins, kBlocks, mins);
  gguf::codec::pack_scales(scales, mins, block.scales);
  for (int pair = 0; pair < kBlocks / 2; ++pair) {
    const std::int8_t* code = values.codes + 64 * pair;
    for (int i = 0; i < 32; ++i)
      block.qs[32 * pair + i] = static_cast<std::uint8_t>(code[i] | code[32 + i] << 4);
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock Q4_K::round(const float* x, const float* importance, float /*mean_square*/) {
  return round_with_mins<Q4_K>(x, importance,
                               {.plain = {-1.f, 0.1f, 20}, .variance = 2, .wraps = true});
}

}  // namespace spectralquant::format
