#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::gguf::codec {

/// value = d · scale · (q − 4), q of three bits
void decode_q3_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ3K, 256>(in, n_values, out, [](const BlockQ3K& block, float* values) {
    const float d = half_to_float(block.d);
    for (int b = 0; b < 16; ++b, values += 16) {
      const std::uint8_t* bytes = block.qs + 32 * (b / 8) + 16 * (b % 2);
      const std::uint8_t* third = block.hmask + 16 * (b % 2);
      const int shift = 2 * (b % 8 / 2);
      const float scale = d * unpack_scale_q3_k(block.scales, b);
      for (int i = 0; i < 16; ++i)
        values[i] = scale * ((bytes[i] >> shift & 3) + (third[i] >> (b / 2) & 1) * 4 - 4);
    }
  });
}

}  // namespace spectralquant::gguf::codec
