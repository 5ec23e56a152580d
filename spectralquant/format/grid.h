#pragma once
#include <cstdint>

#include "spectralquant/gguf/types.h"

namespace spectralquant::format {

/// The whole numbers from lowest to highest.
struct Range {
  int lowest, highest;
};

/// What a format's numbers mean, as its decoder computes values from them:
///
///     value = (f16(d) · scale) · level(code) − f16(dmin) · min
///
/// with d and dmin for each super-block of columns, scale and min for each block in it.
struct Grid {
  gguf::Type type;
  int block;        ///< columns that share a scale and a min
  int super_block;  ///< columns that share d and dmin
  Range code;
  Range scale;              ///< {1, 1}: the format has no scales, d is the step
  Range min;                ///< {0, 0}: the format has neither mins nor dmin
  std::uint32_t file_type;  ///< general.file_type where every matrix has it (llama_ftype, llama.h)
  /// level(code) for code.lowest, …, where levels are not evenly spaced; nullptr: the code itself
  const std::int8_t* levels = nullptr;

  constexpr int blocks() const { return super_block / block; }
  constexpr int levels_count() const { return code.highest - code.lowest + 1; }
  constexpr int level(int number) const { return levels ? levels[number - code.lowest] : number; }
  constexpr bool has_min() const { return min.highest > 0; }
  constexpr bool has_scales() const { return scale.lowest < scale.highest; }
  /// Whether a step, d · scale, may be negative. Codes reach further to one side than to the other:
  /// its sign says to which.
  constexpr bool has_signed_steps() const { return scale.lowest < 0 || !has_scales(); }
};

}  // namespace spectralquant::format
