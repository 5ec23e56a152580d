#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::gguf::codec {

/// value = d · scale · q − dmin · min
void decode_q5_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ5K, 256>(in, n_values, out, [](const BlockQ5K& block, float* values) {
    const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
    std::uint8_t scales[8], mins[8];
    unpack_scales(block.scales, scales, mins);
    for (int b = 0; b < 8; ++b, values += 32) {
      const std::uint8_t* bytes = block.qs + 32 * (b / 2);
      const int shift = 4 * (b % 2);
      const float scale = d * scales[b], min = dmin * mins[b];
      for (int i = 0; i < 32; ++i)
        values[i] = scale * ((bytes[i] >> shift & 15) + (block.qh[i] >> b & 1) * 16) - min;
    }
  });
}

}  // namespace spectralquant::gguf::codec
