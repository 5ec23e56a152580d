#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::gguf::codec {
namespace {

template <float (*kToFloat)(std::uint16_t)>
void decode_16_bit(const std::byte* in, std::uint64_t n_values, float* out) {
  for (std::uint64_t i = 0; i < n_values; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, in + 2 * i, sizeof bits);
    out[i] = kToFloat(bits);
  }
}

}  // namespace

void decode_f32(const std::byte* in, std::uint64_t n_values, float* out) {
  if (n_values != 0) std::memcpy(out, in, n_values * sizeof(float));
}
void decode_f16(const std::byte* in, std::uint64_t n_values, float* out) {
  decode_16_bit<half_to_float>(in, n_values, out);
}
void decode_bf16(const std::byte* in, std::uint64_t n_values, float* out) {
  decode_16_bit<bfloat16_to_float>(in, n_values, out);
}

}  // namespace spectralquant::gguf::codec
