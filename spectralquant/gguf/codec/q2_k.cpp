#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::gguf::codec {

/// value = d · scale · q − dmin · min
void decode_q2_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ2K, 256>(in, n_values, out, [](const BlockQ2K& block, float* values) {
    const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
    for (int b = 0; b < 16; ++b, values += 16) {
      const std::uint8_t* bytes = block.qs + 32 * (b / 8) + 16 * (b % 2);
      const int shift = 2 * (b % 8 / 2);
      const float scale = d * (block.scales[b] & 15), min = dmin * (block.scales[b] >> 4);
      for (int i = 0; i < 16; ++i) values[i] = scale * (bytes[i] >> shift & 3) - min;
    }
  });
}

}  // namespace spectralquant::gguf::codec
