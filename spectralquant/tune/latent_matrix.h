#pragma once
#include <torch/torch.h>

#include <cstdint>

#include "spectralquant/format/grid_matrix.h"
#include "spectralquant/tune/parameter.h"

namespace spectralquant::tune {

/// Rates of one step, each in a unit that means the same in every matrix of every model.
struct Rates {
  /// of a weight, in steps of its block: at 0.01 a weight crosses its cell in a hundred steps
  double codes = 0;
  double sub_scales = 0;    ///< of the 6-bit scales and mins, in their own units
  double super_scales = 0;  ///< of d and dmin, relative
  /// of tensors that stay in float32, in shares of their root mean square
  double free = 0;
};

/// A Q4_K matrix as real numbers that can be learned: what lies behind each code, scale, min, d and
/// dmin.
///
///     value = step · code − offset,  code = clip(round((weight + offset) / step), 0, 15)
///     step = fp16(d0 (1 + δ)) · round(scale),  offset = fp16(dmin0 (1 + δ')) · round(min)
///
/// decode() gives what the decoder will see, bit for bit: the arithmetic is that of
/// GridMatrix::decode(). Gradients pass every rounding as if it were not there (straight-through),
/// and stop where a value is clipped.
///
/// Shapes   weight [rows, cols/32, 32]; scale, min [rows, cols/32, 1]; δ, δ' [rows, cols/256, 1].
/// A block of scale 0 or d = 0 holds only its offset: its weights and scale do not move. A scale
/// above 0 stays at 1 or more.
class LatentMatrix {
 public:
  /// Starts at `solved`. Each weight starts where the original has it, but within ±clip of a step
  /// of the solved value (below .5), so that the codes are those of `solved`; what is closer to the
  /// border would flip at the first noise.
  ///
  /// Shapes   original: [rows, cols] float32. The codes are reproduced as long as a step is not
  ///          below 2⁻²⁰ of its offset.
  LatentMatrix(const torch::Tensor& original, const format::GridMatrix& solved, double clip,
               torch::Device device);

  torch::Tensor decode() const;     ///< [rows, cols] float32
  format::GridMatrix pack() const;  ///< the same values in the format's own numbers
  /// Sends the gradient at the decoded values back to the latents. Uses up `gradient`: [rows, cols]
  /// float32.
  void pull_back(torch::Tensor gradient);
  /// One step of Adam for all of them; latents stay in the format's range.
  void update(const Rates& rates, std::int64_t step, const AdamOptions& options);

  Parameter weight, scale, min, d, dmin;

 private:
  /// step and offset of rows [first, last): [n, cols/32, 1].
  struct Grid {
    torch::Tensor step, offset, scale, min, d, dmin;
  };
  Grid grid(std::int64_t first, std::int64_t last) const;
  /// (weight + offset) / step, not rounded
  torch::Tensor positions(const Grid& grid, std::int64_t first, std::int64_t last) const;
  std::int64_t piece_rows() const;

  std::int64_t rows_, cols_;
  torch::Tensor d0_, dmin0_;    ///< [rows, cols/256, 1]
  torch::Tensor lowest_scale_;  ///< [rows, cols/32, 1]: 0 where the solved scale is 0, else 1
};

}  // namespace spectralquant::tune
