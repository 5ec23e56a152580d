#include <cstring>

#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::format {
namespace {

constexpr int kBias = -Q3_K::kLowestCode;  // codes are stored with it added

/// Where the codes of block b stand: see BlockQ3K.
struct Place {
  int low, low_shift, third, third_bit;
};

Place place_of(int b) {
  const int side = 16 * (b % 2);
  return {32 * (b / 8) + side, 2 * (b % 8 / 2), side, b / 2};
}

/// Without importance: the codes against the largest |x|, then each moved while that helps the
/// scale that follows from all of them. A column weighs x².
///
/// Source   make_q3_quants.
float fit_by_descent(const float* x, std::int8_t* code) {
  constexpr int kBlock = Q3_K::kBlock;
  float largest = 0;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  if (std::fabs(largest) < kTiny) {  // stored as 0, which is the lowest code
    std::fill_n(code, kBlock, static_cast<std::int8_t>(Q3_K::kLowestCode));
    return 0;
  }
  const auto clamped = [](int q) { return std::clamp(q, Q3_K::kLowestCode, Q3_K::kHighestCode); };
  const float inverse = static_cast<float>(Q3_K::kLowestCode) / largest;
  float sum_qx = 0, sum_qq = 0;
  for (int i = 0; i < kBlock; ++i) {
    const int q = clamped(nearest_int(inverse * x[i]));
    code[i] = static_cast<std::int8_t>(q);
    const float w = x[i] * x[i];
    sum_qx += w * x[i] * q;
    sum_qq += w * q * q;
  }
  for (int round = 0; round < 5; ++round) {
    bool changed = false;
    for (int i = 0; i < kBlock; ++i) {
      const float w = x[i] * x[i];
      float qx = sum_qx - w * x[i] * code[i], qq = sum_qq - w * code[i] * code[i];
      if (!(qx > 0)) continue;
      const int q = clamped(nearest_int(x[i] * qq / qx));
      if (q == code[i]) continue;
      qx += w * x[i] * q;
      qq += w * q * q;
      if (qq > 0 && qx * qx * sum_qq > sum_qx * sum_qx * qq) {
        code[i] = static_cast<std::int8_t>(q);
        sum_qx = qx;
        sum_qq = qq;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return sum_qq > 0 ? sum_qx / sum_qq : 0;
}

/// Scales against the largest; returns the super-scale.
float scales_by_largest(const float* scale, std::int8_t* code) {
  float largest = 0;
  for (int b = 0; b < Q3_K::kBlocks; ++b) {
    if (std::fabs(scale[b]) > std::fabs(largest)) largest = scale[b];
  }
  if (largest == 0) {  // stored as bytes of zero, and a stored 0 is the lowest scale
    std::fill_n(code, Q3_K::kBlocks, static_cast<std::int8_t>(Q3_K::kLowestScale));
    return 0;
  }
  const float inverse = static_cast<float>(Q3_K::kLowestScale) / largest;
  for (int b = 0; b < Q3_K::kBlocks; ++b) {
    const auto wrapped = static_cast<std::int8_t>(nearest_int(inverse * scale[b]));
    code[b] =
        static_cast<std::int8_t>(std::clamp<int>(wrapped, Q3_K::kLowestScale, Q3_K::kHighestScale));
  }
  return 1 / inverse;
}

}  // namespace

SuperBlock Q3_K::unpack(const std::byte* bytes) {
  gguf::BlockQ3K block;
  std::memcpy(&block, bytes, sizeof block);
  SuperBlock values;
  values.d = block.d;
  for (int b = 0; b < kBlocks; ++b) {
    values.scales[b] = static_cast<std::int8_t>(gguf::codec::unpack_scale_q3_k(block.scales, b));
    const Place at = place_of(b);
    for (int i = 0; i < kBlock; ++i) {
      const int low = block.qs[at.low + i] >> at.low_shift & 3,
                third = block.hmask[at.third + i] >> at.third_bit & 1;
      values.codes[b * kBlock + i] = static_cast<std::int8_t>((low | third << 2) - kBias);
    }
  }
  return values;
}

void Q3_K::pack(const SuperBlock& values, std::byte* out) {
  gguf::BlockQ3K block{};
  block.d = values.d;
  for (int b = 0; b < kBlocks; ++b) {
    gguf::codec::pack_scale_q3_k(values.scales[b], b, block.scales);
    const Place at = place_of(b);
    for (int i = 0; i < kBlock; ++i) {
      const int code = values.codes[b * kBlock + i] + kBias;
      std::uint8_t &low = block.qs[at.low + i], &third = block.hmask[at.third + i];
      low = static_cast<std::uint8_t>(low | (code & 3) << at.low_shift);
      third = static_cast<std::uint8_t>(third | code >> 2 << at.third_bit);
    }
  }
  std::memcpy(out, &block, sizeof block);
}

SuperBlock Q3_K::round(const float* x, const float* importance, float /*mean_square*/) {
  SuperBlock out;
  float scale[kBlocks];
  if (importance) {
    float sum_xx = 0, weight[kBlock], block_weight[kBlocks];
    for (int i = 0; i < kSuper; ++i) sum_xx += x[i] * x[i];
    const float variance = 2 * sum_xx / kSuper;
    for (int b = 0; b < kBlocks; ++b) {
      const float* xb = x + b * kBlock;
      block_weight[b] = 0;
      for (int i = 0; i < kBlock; ++i) {
        weight[i] = importance[b * kBlock + i] * std::sqrt(variance + xb[i] * xb[i]);
        block_weight[b] += weight[i];
      }
      scale[b] = fit_without_min<kBlock, kBias>(xb, weight, out.codes + b * kBlock);
    }
    out.d = gguf::float_to_half(
        fit_without_min<kBlocks, -kLowestScale>(scale, block_weight, out.scales));
  } else {
    for (int b = 0; b < kBlocks; ++b)
      scale[b] = fit_by_descent(x + b * kBlock, out.codes + b * kBlock);
    out.d = gguf::float_to_half(scales_by_largest(scale, out.scales));
  }
  round_to_steps<Q3_K>(x, out);
  return out;
}

}  // namespace spectralquant::format
