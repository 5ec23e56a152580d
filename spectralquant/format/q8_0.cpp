#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/legacy_blocks.h"

namespace spectralquant::format {

SuperBlock Q8_0::unpack(const std::byte* bytes) {
  gguf::BlockQ8_0 block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.scales[0] = 1;
  std::copy_n(block.qs, kBlock, values.codes);
  return values;
}

void Q8_0::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ8_0 block;
  block.d = values.d;
  std::copy_n(values.codes, kBlock, block.qs);
  std::memcpy(out, &block, sizeof block);
}

/// llama.cpp makes no use of importance here.
SuperBlock Q8_0::round(const float* x, const float* /*importance*/, float /*mean_square*/) {
  SuperBlock out;
  float largest = 0;
  for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / kHighestCode, inverse = d != 0 ? 1 / d : 0.f;
  out.d = gguf::float_to_half(d);
  out.scales[0] = 1;
  for (int i = 0; i < kBlock; ++i) {
    const float q = std::round(x[i] * inverse);  // NaN where 1 / d overflowed
    out.codes[i] = static_cast<std::int8_t>(std::fabs(q) <= kHighestCode ? q : 0.f);
  }
  return out;
}

}  // namespace spectralquant::format
