#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::format {
namespace {

/// Where the bits of block b stand: see BlockQ6K.
struct Place {
  int low, low_shift, high, high_shift;
};

Place place_of(int b) {
  const int half = b / 8, quarter = b % 8 / 2, side = 16 * (b % 2);
  return {64 * half + 32 * (quarter % 2) + side, 4 * (quarter / 2), 32 * half + side, 2 * quarter};
}

constexpr int kBias = -Q6_K::kLowestCode;  // codes are stored with it added

}  // namespace

SuperBlock Q6_K::unpack(const std::byte* bytes) {
  gguf::BlockQ6K block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  std::copy_n(block.scales, kBlocks, values.scales);
  for (int b = 0; b < kBlocks; ++b) {
    const Place at = place_of(b);
    for (int i = 0; i < kBlock; ++i) {
      const int low = block.ql[at.low + i] >> at.low_shift & 15,
                high = block.qh[at.high + i] >> at.high_shift & 3;
      values.codes[b * kBlock + i] = static_cast<std::int8_t>((low | high << 4) - kBias);
    }
  }
  return values;
}

void Q6_K::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ6K block{};
  block.d = values.d;
  std::copy_n(values.scales, kBlocks, block.scales);
  for (int b = 0; b < kBlocks; ++b) {
    const Place at = place_of(b);
    for (int i = 0; i < kBlock; ++i) {
      const int code = values.codes[b * kBlock + i] + kBias;
      std::uint8_t &low = block.ql[at.low + i], &high = block.qh[at.high + i];
      low = static_cast<std::uint8_t>(low | (code & 15) << at.low_shift);
      high = static_cast<std::uint8_t>(high | code >> 4 << at.high_shift);
    }
  }
  std::memcpy(out, &block, sizeof block);
}

/// Without importance a column weighs x².
SuperBlock Q6_K::round(const float* x, const float* importance, float /*mean_square*/) {
  SuperBlock out;
  float scale[kBlocks], largest = 0;
  for (int b = 0; b < kBlocks; ++b) {
    scale[b] = fit_without_min<kBlock, kBias>(
        x + b * kBlock, importance ? importance + b * kBlock : nullptr, out.codes + b * kBlock);
    if (std::fabs(scale[b]) > std::fabs(largest)) largest = scale[b];
  }
  if (std::fabs(largest) < kTiny) {  // stored as bytes of zero, and a stored 0 is the lowest code
    std::fill_n(out.codes, kSuper, static_cast<std::int8_t>(kLowestCode));
    return out;
  }
  const float inverse = static_cast<float>(kLowestScale) / largest;
  out.d = gguf::float_to_half(1 / inverse);
  for (int b = 0; b < kBlocks; ++b) {
    out.scales[b] =
        static_cast<std::int8_t>(std::min(kHighestScale, nearest_int(inverse * scale[b])));
  }
  round_to_steps<Q6_K>(x, out);
  return out;
}

}  // namespace spectralquant::format
