#pragma once
#include "spectralquant/format/llama_rounding.h"
#include "spectralquant/gguf/codec/iq4_blocks.h"

// What llama.cpp's roundings to the IQ4 formats share: as in llama_rounding.h, the bits are the
// point.

namespace spectralquant::format::iq4 {

inline constexpr int kBlock = 32;

/// The code of the level nearest to x; half-way the higher one.
///
/// Source   best_index_int8.
inline int nearest_level(float x) {
  constexpr const auto& levels = gguf::kIq4Levels;
  if (x <= levels[0]) return 0;
  if (x >= levels[15]) return 15;
  int below = 0, above = 15;
  while (above - below > 1) {
    const int middle = (below + above) / 2;
    (x < levels[middle] ? above : below) = middle;
  }
  return x - levels[above - 1] < levels[above] - x ? above - 1 : above;
}

/// Codes of a block for a given step.
inline void round_to_levels(const float* x, float step, std::int8_t* code) {
  const float inverse = step != 0 ? 1 / step : 0.f;
  for (int i = 0; i < kBlock; ++i)
    code[i] = static_cast<std::int8_t>(nearest_level(inverse * x[i]));
}

/// The step of a block: of 16 that bring the largest |x| near the lowest level, the best by
/// weighted least squares. variance: 2 · mean x² of the super-block; without importance a column
/// weighs x².
///
/// Source   quantize_row_iq4_nl_impl with ntry 7. A block whose weights are all zero has no step
///          there but NaN; here it is 0.
inline float fit_step(const float* x, const float* importance, float variance) {
  constexpr int kTrials = 7;
  constexpr float kLowest = gguf::kIq4Levels[0];
  float weight[kBlock], largest = 0;
  for (int i = 0; i < kBlock; ++i) {
    weight[i] = importance ? importance[i] * std::sqrt(variance + x[i] * x[i]) : x[i] * x[i];
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  if (std::fabs(largest) < kTiny) return 0;
  float step = 0, best = 0;
  const auto attempt = [&](float inverse, bool first) {
    float sum_qx = 0, sum_qq = 0;
    for (int i = 0; i < kBlock; ++i) {
      const float q = gguf::kIq4Levels[nearest_level(inverse * x[i])];
      sum_qx += weight[i] * q * x[i];
      sum_qq += weight[i] * q * q;
    }
    if (!(sum_qq > 0) || (!first && !(sum_qx * sum_qx > best * sum_qq))) return;
    step = sum_qx / sum_qq;
    best = step * sum_qx;
  };
  attempt(1 / (-largest / kLowest), true);
  for (int trial = -kTrials; trial <= kTrials; ++trial)
    attempt((static_cast<float>(trial) + kLowest) / largest, false);
  return step;
}

/// 32 codes in 16 bytes: the first 16 in the low halves.
inline void pack_codes(const std::int8_t* code, std::uint8_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<std::uint8_t>(code[i] | code[16 + i] << 4);
}

inline void unpack_codes(const std::uint8_t* bytes, std::int8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = static_cast<std::int8_t>(bytes[i] & 15);
    code[16 + i] = static_cast<std::int8_t>(bytes[i] >> 4);
  }
}

}  // namespace spectralquant::format::iq4
