#include <cstring>

#include "spectralquant/format/iq4_rounding.h"

namespace spectralquant::format {

SuperBlock IQ4_NL::unpack(const std::byte* bytes) {
  gguf::BlockIQ4NL block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  values.scales[0] = 1;
  iq4::unpack_codes(block.qs, values.codes);
  return values;
}

void IQ4_NL::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockIQ4NL block;
  block.d = values.d;
  iq4::pack_codes(values.codes, block.qs);
  std::memcpy(out, &block, sizeof block);
}

SuperBlock IQ4_NL::round(const float* x, const float* importance, float /*mean_square*/) {
  float sum_xx = 0;
  for (int i = 0; i < kBlock; ++i) sum_xx += x[i] * x[i];
  SuperBlock out;
  const float step = iq4::fit_step(x, importance, sum_xx * (2.f / kBlock));
  out.d = gguf::float_to_half(step);
  out.scales[0] = 1;
  iq4::round_to_levels(x, step, out.codes);
  return out;
}

}  // namespace spectralquant::format
