#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/iq4_blocks.h"

namespace spectralquant::gguf::codec {
namespace {

void decode_levels(float scale, const std::uint8_t qs[16], float* values) {
  for (int i = 0; i < 16; ++i) values[i] = scale * kIq4Levels[qs[i] & 15];
  for (int i = 0; i < 16; ++i) values[16 + i] = scale * kIq4Levels[qs[i] >> 4];
}

}  // namespace

/// value = d · level[q]
void decode_iq4_nl(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ4NL, 32>(in, n_values, out, [](const BlockIQ4NL& block, float* values) {
    decode_levels(half_to_float(block.d), block.qs, values);
  });
}

/// value = d · (scale − 32) · level[q], scale of six bits
void decode_iq4_xs(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ4XS, 256>(in, n_values, out, [](const BlockIQ4XS& block, float* values) {
    const float d = half_to_float(block.d);
    for (int b = 0; b < 8; ++b) {
      const int low = block.scales_low[b / 2] >> (4 * (b % 2)) & 15,
                high = block.scales_high >> (2 * b) & 3;
      decode_levels(d * ((low | high << 4) - 32), block.qs + 16 * b, values + 32 * b);
    }
  });
}

}  // namespace spectralquant::gguf::codec
