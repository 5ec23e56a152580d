#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::gguf::codec {

/// value = d · scale · (q − 32), q of six bits
void decode_q6_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ6K, 256>(in, n_values, out, [](const BlockQ6K& block, float* values) {
    const float d = half_to_float(block.d);
    for (int b = 0; b < 16; ++b, values += 16) {
      const int half = b / 8, quarter = b % 8 / 2, side = 16 * (b % 2);
      const std::uint8_t* low = block.ql + 64 * half + 32 * (quarter % 2) + side;
      const std::uint8_t* high = block.qh + 32 * half + side;
      const int low_shift = 4 * (quarter / 2), high_shift = 2 * quarter;
      const float scale = d * block.scales[b];
      for (int i = 0; i < 16; ++i)
        values[i] = scale * (((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    }
  });
}

}  // namespace spectralquant::gguf::codec
