#include "spectralquant/quantize/whole_tiles.h"

#include <algorithm>

#include "spectralquant/quantize/quadratic.h"
#include "spectralquant/quantize/row_solver.h"

namespace spectralquant::quantize {

Problem to_whole_tiles(const Problem& problem) {
  if (!problem.target.defined() || problem.target.dim() != 2)
    return problem;  // Quadratic refuses it
  const std::int64_t missing = (kTile - problem.target.size(1) % kTile) % kTile;
  if (missing == 0) return problem;
  { const Quadratic checked(problem); }
  const auto widened = [&](const torch::Tensor& t, bool square) {
    if (!t.defined()) return t;
    return square && t.dim() == 2 ? torch::constant_pad_nd(t, {0, missing, 0, missing})
                                  : torch::constant_pad_nd(t, {0, missing});
  };
  Problem out = problem;
  out.target = widened(problem.target, false);
  out.c_target = widened(problem.c_target, false);
  out.h = widened(problem.h, true);
  out.c = widened(problem.c, true);
  return out;
}

format::GridMatrix with_columns(const format::GridMatrix& matrix, std::int64_t cols) {
  if (cols == matrix.cols) return matrix;
  format::GridMatrix out(*matrix.grid, matrix.rows, cols);
  const auto copy = [&](const auto& from, auto& to) {
    const auto from_row = std::ssize(from) / matrix.rows, to_row = std::ssize(to) / matrix.rows;
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      std::copy_n(from.begin() + r * from_row, std::min(from_row, to_row), to.begin() + r * to_row);
    }
  };
  copy(matrix.codes, out.codes);
  copy(matrix.scales, out.scales);
  copy(matrix.mins, out.mins);
  copy(matrix.d, out.d);
  copy(matrix.dmin, out.dmin);
  return out;
}

}  // namespace spectralquant::quantize
