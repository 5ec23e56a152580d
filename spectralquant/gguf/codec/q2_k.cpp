#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::gguf::codec {
namespace {

struct BlockQ2K {
  /// a block of 16 values each: scale in the low four bits, min in the high four
  std::uint8_t scales[16];
  /// each 128 values share 32 bytes: values 32 k … 32 k + 31 in bits 2 k, 2 k + 1
  std::uint8_t qs[64];
  std::uint16_t d, dmin;
};
static_assert(sizeof(BlockQ2K) == 84);

}  // namespace

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
