#include <cstring>

#include "spectralquant/format/iq4_rounding.h"

namespace spectralquant::format {

SuperBlock IQ4_XS::unpack(const std::byte* bytes) {
  gguf::BlockIQ4XS block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  for (int b = 0; b < kBlocks; ++b) {
    const int low = block.scales_low[b / 2] >> (4 * (b % 2)) & 15,
              high = block.scales_high >> (2 * b) & 3;
    values.scales[b] = static_cast<std::int8_t>((low | high << 4) + kLowestScale);
    iq4::unpack_codes(block.qs + 16 * b, values.codes + kBlock * b);
  }
  return values;
}

void IQ4_XS::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockIQ4XS block{};
  block.d = values.d;
  for (int b = 0; b < kBlocks; ++b) {
    const int scale = values.scales[b] - kLowestScale;
    std::uint8_t& low = block.scales_low[b / 2];
    low = static_cast<std::uint8_t>(low | (scale & 15) << (4 * (b % 2)));
    block.scales_high = static_cast<std::uint16_t>(block.scales_high | scale >> 4 << (2 * b));
    iq4::pack_codes(values.codes + kBlock * b, block.qs + 16 * b);
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock IQ4_XS::round(const float* x, const float* importance, float /*mean_square*/) {
  float sum_xx = 0, scale[kBlocks], largest = 0;
  for (int i = 0; i < kSuper; ++i) sum_xx += x[i] * x[i];
  for (int b = 0; b < kBlocks; ++b) {
    scale[b] = iq4::fit_step(x + b * kBlock, importance ? importance + b * kBlock : nullptr,
                             sum_xx * (2.f / kSuper));
    if (std::fabs(scale[b]) > std::fabs(largest)) largest = scale[b];
  }
  SuperBlock out;
  const float d = largest / static_cast<float>(kLowestScale), inverse = d != 0 ? 1 / d : 0.f;
  out.d = gguf::float_to_half(d);
  for (int b = 0; b < kBlocks; ++b) {
    const int number = std::clamp(nearest_int(inverse * scale[b]), kLowestScale, kHighestScale);
    out.scales[b] = static_cast<std::int8_t>(number);
    // against d before it becomes fp16, as there
    iq4::round_to_levels(x + b * kBlock, d * static_cast<float>(number), out.codes + b * kBlock);
  }
  return out;
}

}  // namespace spectralquant::format
