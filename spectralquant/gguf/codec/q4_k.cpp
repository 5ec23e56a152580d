#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::gguf {

void codec::decode_q4_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ4K, 256>(in, n_values, out, [](const BlockQ4K& block, float* values) {
    const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
    std::uint8_t scale[8], min[8];
    unpack_scales(block.scales, scale, min);
    for (int pair = 0; pair < 4; ++pair, values += 64) {
      const std::uint8_t* bytes = block.qs + 32 * pair;
      const float low_scale = d * scale[2 * pair], low_min = dmin * min[2 * pair];
      const float high_scale = d * scale[2 * pair + 1], high_min = dmin * min[2 * pair + 1];
      for (int i = 0; i < 32; ++i) values[i] = low_scale * (bytes[i] & 15) - low_min;
      for (int i = 0; i < 32; ++i) values[32 + i] = high_scale * (bytes[i] >> 4) - high_min;
    }
  });
}

}  // namespace spectralquant::gguf
