#pragma once
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/format/formats.h"

/// What the kernels of the solvers are compiled for. A format is a shape, which decides the code,
/// and numbers, which are data: formats of one shape share their kernels.
namespace spectralquant::quantize {

/// Levels of a format whose levels are not evenly spaced.
inline constexpr int kLevels = 16;

struct Shape {
  int block, super_block;
  bool has_min, has_scales, has_signed_steps;
  bool has_levels;  ///< kLevels of them, not evenly spaced

  constexpr bool operator==(const Shape&) const = default;
};

constexpr Shape shape_of(const format::Grid& grid) {
  return {grid.block,        grid.super_block,        grid.has_min(),
          grid.has_scales(), grid.has_signed_steps(), grid.levels != nullptr};
}

/// A shape as a type, what kernels are templates over. Plain numbers, as compilers for devices want
/// them.
template <int kColumns, int kSuperColumns, bool kMin, bool kScales, bool kSignedSteps, bool kUneven>
struct Shaped {
  static constexpr int kBlock = kColumns, kSuper = kSuperColumns, kBlocks = kSuper / kBlock;
  static constexpr bool kHasMin = kMin, kHasScales = kScales, kHasSignedSteps = kSignedSteps,
                        kHasLevels = kUneven;
};

/// The shape of a format at compile time, format::NAME.
template <class Format, Shape kShape = shape_of(Format::kGrid)>
using ShapedAs = Shaped<kShape.block, kShape.super_block, kShape.has_min, kShape.has_scales,
                        kShape.has_signed_steps, kShape.has_levels>;

/// A format of each shape: Q3_K has that of Q6_K, Q4_K is alike to Q5_K, Q4_0 and Q5_0 to Q8_0.
#define SPECTRALQUANT_SHAPES(LINE) \
  LINE(Q4_K) LINE(Q6_K) LINE(Q2_K) LINE(IQ4_XS) LINE(IQ4_NL) LINE(Q8_0)

/// visit(Shaped<…>{}) for the shape of a grid.
template <class Visit>
decltype(auto) with_shape(const format::Grid& grid, Visit&& visit) {
  const Shape shape = shape_of(grid);
#define SPECTRALQUANT_VISIT(name)             \
  if (shape == shape_of(format::name::kGrid)) \
    return std::forward<Visit>(visit)(ShapedAs<format::name>{});
  SPECTRALQUANT_SHAPES(SPECTRALQUANT_VISIT)
#undef SPECTRALQUANT_VISIT
  throw Error(ErrorCode::kFailed, "a grid whose shape has no kernels", format::name_of(grid),
              "please report this as a bug");
}

/// The numbers of a format, as kernels read them on any device.
struct Numbers {
  format::Range code, scale, min;
  /// Candidates of d where there are no scales lie this share of it apart.
  float step_of_d;
  /// Levels in ascending order, and where each but the first begins to be the nearest.
  float level[kLevels], begin[kLevels];
};

constexpr Numbers numbers_of(const format::Grid& grid) {
  // A quarter of a step at the outermost code: nearer ones round alike.
  constexpr float kQuarter = 0.25f;
  Numbers out{grid.code, grid.scale, grid.min, kQuarter / static_cast<float>(grid.levels_count()),
              {},        {}};
  if (!grid.levels) return out;
  for (int k = 0; k < kLevels; ++k) {
    out.level[k] = grid.levels[k];
    out.begin[k] = k > 0 ? (out.level[k - 1] + out.level[k]) / 2 : 0;
  }
  return out;
}

}  // namespace spectralquant::quantize
