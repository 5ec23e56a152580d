#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::gguf::codec {
namespace {

struct BlockQ3K {
  std::uint8_t hmask[32];   ///< third bit of value v: bit v / 32 of byte v % 32
  std::uint8_t qs[64];      ///< low two bits, laid out as in Q2_K
  std::uint8_t scales[12];  ///< 16 six-bit scales, stored + 32
  std::uint16_t d;
};
static_assert(sizeof(BlockQ3K) == 110);

/// Scale of block b of 16 values. Low four bits: byte b % 8, low half for b < 8, high half above.
/// High two bits: byte 8 + b % 4, at bit 2 (b / 4).
int scale_of(const std::uint8_t packed[12], int b) {
  const int low = packed[b % 8] >> (b < 8 ? 0 : 4) & 15;
  const int high = packed[8 + b % 4] >> (2 * (b / 4)) & 3;
  return (low | high << 4) - 32;
}

}  // namespace

/// value = d · scale · (q − 4), q of three bits
void decode_q3_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ3K, 256>(in, n_values, out, [](const BlockQ3K& block, float* values) {
    const float d = half_to_float(block.d);
    for (int b = 0; b < 16; ++b, values += 16) {
      const std::uint8_t* bytes = block.qs + 32 * (b / 8) + 16 * (b % 2);
      const std::uint8_t* third = block.hmask + 16 * (b % 2);
      const int shift = 2 * (b % 8 / 2);
      const float scale = d * scale_of(block.scales, b);
      for (int i = 0; i < 16; ++i)
        values[i] = scale * ((bytes[i] >> shift & 3) + (third[i] >> (b / 2) & 1) * 4 - 4);
    }
  });
}

}  // namespace spectralquant::gguf::codec
