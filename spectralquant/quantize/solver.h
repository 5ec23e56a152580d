#pragma once
#include <torch/types.h>

#include <cstdint>

#include "spectralquant/core/progress.h"
#include "spectralquant/format/grid_matrix.h"

namespace spectralquant::quantize {

/// The steps of the solver, each of which can be left out (docs/method.md has what each gains).
struct SolverOptions {
  double damping = 0.01;         ///< added to diag(H), as a share of its mean
  double output_damping = 0.01;  ///< the same for G
  /// start: feedback tries (scale, min) within ± this of the rounded ones; 0: fixed scales
  int live_scale_radius = 3;
  /// start with error feedback (GPTQ family); false: plain weighted rounding
  bool feedback = true;
  int rounds = 2;            ///< passes over all rows after the start; 0: the start is the result
  int sweeps = 2;            ///< coordinate-descent sweeps over a row in each pass
  bool scale_search = true;  ///< sub-scales ± 1 inside the sweeps
  bool super_scale_search = true;  ///< d and dmin × {.96 .985 1.015 1.04} inside the sweeps
  int n_threads = 0;               ///< the result is the same for any number
};

/// What is to be approximated, in which format, and what an error costs:
///   tr(G E H Eᵀ) + Σ_r frequency_r e_r C e_rᵀ,   E = Ŵ − target.
struct Problem {
  const format::Grid* grid = &format::Q4_K::kGrid;
  torch::Tensor target;  ///< [rows, cols] float32: W, or W corrected for drift
  torch::Tensor h;       ///< [cols, cols]; or [cols]: a diagonal
  torch::Tensor g;       ///< [rows, rows]; undefined: identity (one-sided)
  /// [rows]; with c, the input side of a tied embedding; both undefined otherwise
  torch::Tensor frequency;
  torch::Tensor c;  ///< [cols, cols]
  /// target of the second term when it differs (W without drift correction)
  torch::Tensor c_target;
};

struct Solution {
  format::GridMatrix matrix;
  double objective_start = 0;    ///< after the start
  double plain_objective = 0;    ///< of llama.cpp's rounding of the target, without importance
  double imatrix_objective = 0;  ///< with diag(H) as importance
  double objective = 0;          ///< of `matrix`, recomputed from its decoded values, undamped
};

/// Solves one matrix into the grid of its format.
///
/// Never worse, in the given objective, than format::round_like_llama() with and without diag(H) as
/// importance. Rows in parallel; the same bytes for any n_threads.
/// Errors   Error(kBadInput) for shapes that do not fit, columns that are no whole super-blocks,
///          NaN or infinity in target or moments.
Solution solve(const Problem& problem, const SolverOptions& options = {},
               const Progress& progress = {});

/// The objective of a candidate, in double from decoded values.
double objective(const Problem& problem, const format::GridMatrix& candidate);

}  // namespace spectralquant::quantize
