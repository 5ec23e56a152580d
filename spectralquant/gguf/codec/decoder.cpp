#include "spectralquant/gguf/codec/decoder.h"

#include <cstring>

#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/q4_k.h"

namespace spectralquant::gguf {
namespace {

void decode_f32(const std::byte* in, std::uint64_t n_values, float* out) { std::memcpy(out, in, n_values * sizeof(float)); }

template <float (*ToFloat)(std::uint16_t)>
void decode_16(const std::byte* in, std::uint64_t n_values, float* out) {
  for (std::uint64_t i = 0; i < n_values; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, in + 2 * i, 2);
    out[i] = ToFloat(bits);
  }
}

void decode_q4_k(const std::byte* in, std::uint64_t n_values, float* out) {
  for (std::uint64_t b = 0; b < n_values / kSuperBlock; ++b, out += kSuperBlock) {
    BlockQ4K block;
    std::memcpy(&block, in + b * sizeof block, sizeof block);
    const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
    for (int j = 0; j < 8; ++j) {
      // Scales and mins of blocks 4..7 keep their two high bits on top of those of blocks 0..3.
      const std::uint8_t* s = block.scales;
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
      const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
      const float step = d * static_cast<float>(scale), low = dmin * static_cast<float>(min);
      for (int i = 0; i < 32; ++i) {
        const int code = block.qs[32 * (j / 2) + i] >> (4 * (j % 2)) & 15;
        out[32 * j + i] = step * static_cast<float>(code) - low;
      }
    }
  }
}

}  // namespace

RowDecoder find_decoder(Type type) {
  switch (type) {
    case Type::F32: return decode_f32;
    case Type::F16: return decode_16<half_to_float>;
    case Type::BF16: return decode_16<bfloat16_to_float>;
    case Type::Q4_K: return decode_q4_k;
    default: return nullptr;
  }
}

}  // namespace spectralquant::gguf
