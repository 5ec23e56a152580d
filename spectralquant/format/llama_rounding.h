#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "spectralquant/format/formats.h"
#include "spectralquant/gguf/codec/half.h"

// What llama.cpp's roundings of several formats share. Everything here is float32 and in
// llama.cpp's order of operations: the point is its bits, not the best rounding. Where an
// intermediate wraps around in 8 bits there, it does so here.

namespace spectralquant::format {

/// Below it a set of scales counts as all zero (GROUP_MAX_EPS).
inline constexpr float kTiny = 1e-15f;

/// Rounds half to even by adding 1.5·2²³, as llama.cpp does: differs from lrint() outside ±2²².
inline int nearest_int(float value) {
  const int bits = std::bit_cast<int>(value + 12582912.f);
  return (bits & 0x007fffff) - 0x00400000;
}

/// Trial scales of the search: (max code + first + i·step) / range for i = 0 … n_steps.
struct ScaleSearch {
  float first, step;
  int n_steps;
};

struct BlockFit {
  float scale = 0, min = 0;  ///< value ≈ scale · code − min, min >= 0
};

/// Weighted least squares of (scale, min) over the codes that each trial scale gives; the one of
/// least error is kept: of squares, or with kAbsolute of magnitudes.
///
/// Source   make_qkx2_quants, make_qkx3_quants.
template <int kBlock, int kMaxCode, bool kAbsolute = false>
BlockFit fit_block(const float* x, const float* weight, const ScaleSearch& search,
                   std::uint8_t* code) {
  float low = x[0], high = x[0], sum_w = weight[0], sum_wx = weight[0] * x[0];
  for (int i = 1; i < kBlock; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    sum_w += weight[i];
    sum_wx += weight[i] * x[i];
  }
  if (low > 0) low = 0;  // the format has no way to add: mins are subtracted
  if (high <= low) {
    std::fill_n(code, kBlock, std::uint8_t{0});
    return {0, -low};
  }
  const auto cost = [](float error) { return kAbsolute ? std::fabs(error) : error * error; };
  float inverse = kMaxCode / (high - low);
  float scale = 1 / inverse, best_error = 0;
  for (int i = 0; i < kBlock; ++i) {
    code[i] =
        static_cast<std::uint8_t>(std::clamp(nearest_int(inverse * (x[i] - low)), 0, kMaxCode));
    const float error = scale * code[i] + low - x[i];
    best_error += weight[i] * cost(error);
  }
  // `low` moves with the best fit, and later trials measure from it: a quirk that decides bits.
  for (int step = 0; step <= search.n_steps; ++step) {
    inverse = (search.first + search.step * step + kMaxCode) / (high - low);
    std::uint8_t trial[kBlock];
    float sum_q = 0, sum_qq = 0, sum_qx = 0;
    for (int i = 0; i < kBlock; ++i) {
      const int q = std::clamp(nearest_int(inverse * (x[i] - low)), 0, kMaxCode);
      trial[i] = static_cast<std::uint8_t>(q);
      const float wq = weight[i] * q;
      sum_q += wq;
      sum_qq += wq * q;
      sum_qx += wq * x[i];
    }
    const float determinant = sum_w * sum_qq - sum_q * sum_q;
    if (!(determinant > 0)) continue;
    float trial_scale = (sum_w * sum_qx - sum_wx * sum_q) / determinant;
    float trial_low = (sum_qq * sum_wx - sum_q * sum_qx) / determinant;
    if (trial_low > 0) {
      trial_low = 0;
      trial_scale = sum_qx / sum_qq;
    }
    float trial_error = 0;
    for (int i = 0; i < kBlock; ++i) {
      const float error = trial_scale * trial[i] + trial_low - x[i];
      trial_error += weight[i] * cost(error);
    }
    if (trial_error < best_error) {
      std::copy_n(trial, kBlock, code);
      best_error = trial_error;
      scale = trial_scale;
      low = trial_low;
    }
  }
  return {scale, -low};
}

/// The scale that best renders x in codes −kLimit … kLimit − 1, of 19 that fill the range with the
/// largest |x| at the lower end. weight: nullptr for x².
///
/// Source   make_qx_quants with rmse_type 1.
template <int kBlock, int kLimit>
float fit_without_min(const float* x, const float* weight, std::int8_t* code) {
  float largest = 0;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  if (std::fabs(largest) < kTiny) {  // stored as 0, which is the lowest code
    std::fill_n(code, kBlock, static_cast<std::int8_t>(-kLimit));
    return 0;
  }
  float scale = 0, best = 0;
  const auto render = [&](int i, float inverse) {
    return std::clamp(nearest_int(inverse * x[i]), -kLimit, kLimit - 1);
  };
  const auto attempt = [&](float inverse, bool first) {
    float sum_qx = 0, sum_qq = 0;
    for (int i = 0; i < kBlock; ++i) {
      const int q = render(i, inverse);
      const float w = weight ? weight[i] : x[i] * x[i];
      sum_qx += w * x[i] * q;
      sum_qq += w * q * q;
    }
    if (!first && !(sum_qq > 0 && sum_qx * sum_qx > best * sum_qq)) return;
    for (int i = 0; i < kBlock; ++i) code[i] = static_cast<std::int8_t>(render(i, inverse));
    scale = sum_qq != 0 ? sum_qx / sum_qq : 0.f;
    best = scale * sum_qx;
  };
  attempt(-kLimit / largest, true);
  for (int step = -9; step <= 9; ++step) {
    if (step != 0) attempt(-(kLimit + 0.1f * step) / largest, false);
  }
  return scale;
}

/// Importance only: the super-scale that best renders the scales (or mins), and their
/// codes.
///
/// Source   make_qp_quants.
template <int kBlocks, int kMaxScale>
float fit_super_scale(const float* x, const float* weight, std::uint8_t* code) {
  float highest = 0;
  for (int i = 0; i < kBlocks; ++i) highest = highest > x[i] ? highest : x[i];
  if (highest < kTiny) {
    std::fill_n(code, kBlocks, std::uint8_t{0});
    return 0;
  }
  float inverse = kMaxScale / highest, best_error = 0;
  const float scale = 1 / inverse;
  for (int i = 0; i < kBlocks; ++i) {
    code[i] = static_cast<std::uint8_t>(nearest_int(inverse * x[i]));
    const float error = x[i] - scale * code[i];
    best_error += weight[i] * error * error;
  }
  for (int step = -4; step <= 4; ++step) {
    if (step == 0) continue;
    const float trial = (0.1f * step + kMaxScale) / highest, trial_scale = 1 / trial;
    float trial_error = 0;
    for (int i = 0; i < kBlocks; ++i) {
      const float error = x[i] - trial_scale * std::min(nearest_int(trial * x[i]), kMaxScale);
      trial_error += weight[i] * error * error;
    }
    if (trial_error < best_error) {
      best_error = trial_error;
      inverse = trial;
    }
  }
  float sum_qx = 0, sum_qq = 0;
  for (int i = 0; i < kBlocks; ++i) {
    const int q = std::min(nearest_int(inverse * x[i]), kMaxScale);
    code[i] = static_cast<std::uint8_t>(q);
    sum_qx += weight[i] * x[i] * q;
    sum_qq += weight[i] * q * q;
  }
  for (int round = 0; round < 5; ++round) {  // coordinate descent on the codes
    bool changed = false;
    for (int i = 0; i < kBlocks; ++i) {
      const float w = weight[i];
      float qx = sum_qx - w * x[i] * code[i], qq = sum_qq - w * code[i] * code[i];
      if (!(qx > 0 && qq > 0)) continue;
      const int q = std::min(nearest_int(x[i] * qq / qx), kMaxScale);
      if (q == code[i]) continue;
      qx += w * x[i] * q;
      qq += w * q * q;
      if (qx * qx * sum_qq > sum_qx * sum_qx * qq) {
        code[i] = static_cast<std::uint8_t>(q);
        sum_qx = qx;
        sum_qq = qq;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return sum_qq > 0 ? sum_qx / sum_qq : 0;
}

/// Codes of scales (or mins) against their largest; returns the super-scale. A negative scale wraps
/// around; with kClamps it ends as the largest code.
template <int kBlocks, int kMaxScale, bool kClamps>
float divide_by_largest(const float* x, std::uint8_t* code) {
  float highest = 0;
  for (int i = 0; i < kBlocks; ++i) highest = x[i] > highest ? x[i] : highest;
  const float inverse = highest > 0 ? kMaxScale / highest : 0;
  for (int i = 0; i < kBlocks; ++i) {
    code[i] = static_cast<std::uint8_t>(nearest_int(inverse * x[i]));
    if (kClamps) code[i] = std::min(code[i], std::uint8_t{kMaxScale});
  }
  return highest / kMaxScale;
}

/// What differs between the roundings of formats with mins.
struct MinRounding {
  ScaleSearch plain;  ///< without importance
  float variance;  ///< importance is weighed by √(variance · mean x² of the super-block + x²)
  /// whether a scale code that wrapped around in 8 bits (a negative scale) goes into the packed
  /// bytes as it is, and spills into its neighbour there
  bool wraps;
};

/// A super-block of F, a format with mins (Q2_K, Q4_K, Q5_K). kAbsolute: without importance a block
/// is fitted by Σ |x| · |error|.
template <class F, bool kAbsolute = false>
SuperBlock round_with_mins(const float* x, const float* importance, const MinRounding& how) {
  constexpr int kBlock = F::kBlock, kBlocks = F::kBlocks, kMaxCode = F::kHighestCode,
                kMaxScale = F::kHighestScale;
  constexpr ScaleSearch kImportanceSearch{-0.9f, 0.05f, 36};
  SuperBlock out;
  std::uint8_t code[F::kSuper], scale_code[kBlocks], min_code[kBlocks];
  float scale[kBlocks], min[kBlocks], weight[kBlock], block_weight[kBlocks], d, dmin;
  if (importance) {
    float sum_xx = 0;
    for (int i = 0; i < F::kSuper; ++i) sum_xx += x[i] * x[i];
    const float variance = how.variance * sum_xx / F::kSuper;
    for (int b = 0; b < kBlocks; ++b) {
      const float* xb = x + b * kBlock;
      block_weight[b] = 0;
      for (int i = 0; i < kBlock; ++i) {
        weight[i] = importance[b * kBlock + i] * std::sqrt(variance + xb[i] * xb[i]);
        block_weight[b] += weight[i];
      }
      const BlockFit fit =
          fit_block<kBlock, kMaxCode>(xb, weight, kImportanceSearch, code + b * kBlock);
      scale[b] = fit.scale;
      min[b] = fit.min;
    }
    d = fit_super_scale<kBlocks, kMaxScale>(scale, block_weight, scale_code);
    dmin = fit_super_scale<kBlocks, kMaxScale>(min, block_weight, min_code);
  } else {
    for (int b = 0; b < kBlocks; ++b) {
      const float* xb = x + b * kBlock;
      float sum_xx = 0;
      for (int i = 0; i < kBlock; ++i) sum_xx += xb[i] * xb[i];
      const float rms = kAbsolute ? 0.f : std::sqrt(sum_xx / kBlock);
      for (int i = 0; i < kBlock; ++i) weight[i] = rms + std::fabs(xb[i]);
      const BlockFit fit =
          fit_block<kBlock, kMaxCode, kAbsolute>(xb, weight, how.plain, code + b * kBlock);
      scale[b] = fit.scale;
      min[b] = fit.min;
    }
    d = divide_by_largest<kBlocks, kMaxScale, !kAbsolute>(scale, scale_code);
    dmin = divide_by_largest<kBlocks, kMaxScale, !kAbsolute>(min, min_code);
  }
  for (int b = 0; b < kBlocks; ++b) {
    constexpr std::uint8_t kMost = kMaxScale;
    out.scales[b] =
        static_cast<std::int8_t>(how.wraps ? scale_code[b] : std::min(scale_code[b], kMost));
    out.mins[b] = static_cast<std::int8_t>(how.wraps ? min_code[b] : std::min(min_code[b], kMost));
  }
  out.d = gguf::float_to_half(d);
  out.dmin = gguf::float_to_half(dmin);
  std::copy_n(code, F::kSuper, out.codes);
  // Rounded against what the decoder will read.
  std::byte bytes[gguf::kSuperBlock];
  F::pack(out, bytes);
  out = F::unpack(bytes);
  for (int b = 0; b < kBlocks; ++b) {
    const float step = gguf::half_to_float(out.d) * out.scales[b];
    if (step == 0) continue;  // the codes of the search stay
    const float offset = gguf::half_to_float(out.dmin) * out.mins[b];
    for (int i = b * kBlock; i < (b + 1) * kBlock; ++i) {
      out.codes[i] =
          static_cast<std::int8_t>(std::clamp(nearest_int((x[i] + offset) / step), 0, kMaxCode));
    }
  }
  return out;
}

/// Codes of the blocks of F, a format without mins, by what the decoder will read; those of the
/// search stay where a block has no step.
template <class F>
void round_to_steps(const float* x, SuperBlock& out) {
  for (int b = 0; b < F::kBlocks; ++b) {
    const float step = gguf::half_to_float(out.d) * out.scales[b];
    if (step == 0) continue;
    for (int i = b * F::kBlock; i < (b + 1) * F::kBlock; ++i) {
      out.codes[i] = static_cast<std::int8_t>(
          std::clamp(nearest_int(x[i] / step), F::kLowestCode, F::kHighestCode));
    }
  }
}

/// A block of F, an even format without scales whose codes reach one further down than up (Q4_0,
/// Q5_0).
///
/// Source   quantize_row_q4_0_ref and quantize_row_q4_0_impl.
template <class F>
SuperBlock round_without_scales(const float* x, const float* importance, float mean_square) {
  constexpr int kBlock = F::kBlock, kLimit = -F::kLowestCode;
  SuperBlock out;
  out.scales[0] = 1;
  if (importance) {
    float weight[kBlock];
    for (int i = 0; i < kBlock; ++i)
      weight[i] = importance[i] * std::sqrt(mean_square + x[i] * x[i]);
    out.d = gguf::float_to_half(fit_without_min<kBlock, kLimit>(x, weight, out.codes));
    return out;
  }
  float largest = 0;
  for (int i = 0; i < kBlock; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  const float d = largest / -kLimit, inverse = d != 0 ? 1 / d : 0.f;
  out.d = gguf::float_to_half(d);
  for (int i = 0; i < kBlock; ++i) {
    const float up = x[i] * inverse + (kLimit + 0.5f);  // truncated; NaN where 1 / d overflowed
    const int stored = up > 0 ? std::min(static_cast<int>(up), 2 * kLimit - 1) : 0;
    out.codes[i] = static_cast<std::int8_t>(stored - kLimit);
  }
  return out;
}

}  // namespace spectralquant::format
