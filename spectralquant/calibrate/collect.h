#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/model/model.h"

namespace spectralquant::calibrate {

using Windows = std::vector<std::vector<std::int32_t>>;  ///< equal-length token windows

struct CollectOptions {
  bool output_moments = false;  ///< also G (and C, frequency of a tied embedding): one backward pass per batch
  std::uint64_t seed = 0;       ///< of the Fisher sketch
  std::int64_t batch = 0;       ///< windows at once; 0: chosen from the model's size
};

/// Static signals: moments of the original model, block by block; memory is that of one block and of the residual
/// streams of all windows.
Signals collect(model::Model& model, const Windows& windows, const CollectOptions& options = {}, const Progress& progress = {});

/// What the drift-aware walk knows of one stage (a group of matrices that read the same input) when it is solved.
/// x_q, x_f: that input in the quantized-so-far and in the original model; r_q, r_f: the residual streams.
struct StageMoments {
  std::int64_t block = 0;
  std::vector<std::string> names;  ///< matrices of the stage
  torch::Tensor h;                 ///< E[x_q x_qᵀ], [cols, cols]
  torch::Tensor input_drift;       ///< E[(x_f − x_q) x_qᵀ], [cols, cols]; undefined unless asked
  torch::Tensor residual_drift;    ///< E[(r_f − r_q) x_qᵀ], [D, cols]; only for output projections, unless not asked
  std::int64_t n_tokens = 0;
};

struct WalkOptions {
  bool drift = true;      ///< carry the original model's stream beside the quantized one
  std::int64_t batch = 0;
};

/// Walks the model block by block, stage by stage, with everything in front already quantized.
///
/// `solve` gets the moments of a stage and puts the quantized weights in place with model.weights().set() before it
/// returns; the walk then goes on with them. The embedding must be in place before; the head comes last, as a stage
/// of block −1 named after it (also when tied: then for information).
void walk(model::Model& model, const Windows& windows, const WalkOptions& options,
          const std::function<void(const StageMoments&)>& solve, const Progress& progress = {});

}  // namespace spectralquant::calibrate
