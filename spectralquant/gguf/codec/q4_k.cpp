#include "spectralquant/gguf/codec/q4_k.h"

#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::gguf {

UnpackedQ4K unpack(const BlockQ4K& block) {
  UnpackedQ4K values;
  values.d = block.d;
  values.dmin = block.dmin;
  codec::unpack_scales(block.scales, values.scale, values.min);
  for (int pair = 0; pair < 4; ++pair) {
    const std::uint8_t* bytes = block.qs + 32 * pair;
    std::uint8_t* code = values.code + 64 * pair;
    for (int i = 0; i < 32; ++i) code[i] = bytes[i] & 15;
    for (int i = 0; i < 32; ++i) code[32 + i] = bytes[i] >> 4;
  }
  return values;
}

BlockQ4K pack(const UnpackedQ4K& values) {
  BlockQ4K block;
  block.d = values.d;
  block.dmin = values.dmin;
  for (int j = 0; j < 4; ++j) {
    block.scales[j] = static_cast<std::uint8_t>(values.scale[j] | values.scale[j + 4] >> 4 << 6);
    block.scales[j + 4] = static_cast<std::uint8_t>(values.min[j] | values.min[j + 4] >> 4 << 6);
    block.scales[j + 8] =
        static_cast<std::uint8_t>((values.scale[j + 4] & 15) | (values.min[j + 4] & 15) << 4);
  }
  for (int pair = 0; pair < 4; ++pair) {
    const std::uint8_t* code = values.code + 64 * pair;
    for (int i = 0; i < 32; ++i)
      block.qs[32 * pair + i] = static_cast<std::uint8_t>(code[i] | code[32 + i] << 4);
  }
  return block;
}

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
