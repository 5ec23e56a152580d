#pragma once
#include <torch/types.h>

#include <cstdint>
#include <functional>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/model/model.h"

namespace spectralquant::calibrate {

/// What the drift-aware walk knows of matrices that read one input when they are solved. x_q, x_f:
/// that input in the quantized-so-far and in the original model.
///
/// An expert reads the tokens that the original routes to it. Its moments are those beside the mean
/// over all experts (Moment::mean_beside).
struct InputMoments {
  std::int64_t block = 0;   ///< −1: the head
  model::Readers matrices;  ///< that read the input
  torch::Tensor h;          ///< E[x_q x_qᵀ], [cols, cols]
  /// E[(x_f − x_q) x_qᵀ], [cols, cols]: of matrices whose product goes on into the block
  torch::Tensor input_drift;
  /// E[(W x_f + r_f − W x_q − r_q) x_qᵀ], [D, cols]: of one whose product is added to the residual
  /// stream r as it is
  torch::Tensor output_drift;
  std::int64_t n_tokens = 0;  ///< of an expert: those that it reads
};
/// Of the readers of one stage: those of one input, or of each expert.
using StageMoments = std::vector<InputMoments>;

struct WalkOptions {
  /// its processes share the windows; `solve` gets the moments of all of them in each
  distribute::Group group = {};
  /// also input_drift and output_drift: carry the original model's stream beside the quantized one
  bool drift = true;
  std::int64_t batch = 0;  ///< windows at once; 0: chosen from their length
  Spill spill = {};        ///< for long streams, and inputs of an output projection
  /// Whether the moments of a stage are wanted; where they are not (its matrices are solved
  /// already), `solve` gets undefined ones.
  std::function<bool(const model::Stage& stage)> wanted;
};

/// Walks the model block by block, stage by stage, with everything in front already quantized.
///
/// `solve` gets the moments of a stage and puts the quantized weights in place with
/// model.weights().set() before it returns; the walk then goes on with them. The embedding must be
/// in place before; a head of its own comes behind the blocks, as a stage of block −1, then draft
/// blocks (MTP).
///
/// Memory   residual streams of all windows (twice with drift) and the inputs of one output
///          projection, as far as spill.memory_bytes goes; one block of weights (twice with drift:
///          the original runs as a second Model on the same file). What was set() stays set:
///          reset() it to save memory.
/// Errors   Error(kBadUsage) if there are no windows or they differ in length.
void walk(model::Model& model, const Windows& windows, const WalkOptions& options,
          const std::function<void(const StageMoments&)>& solve, const Progress& progress = {});

}  // namespace spectralquant::calibrate
