#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/model/model.h"

namespace spectralquant::calibrate {

/// A head's G is [V, V]: 4 GiB at this size; above it only its diagonal is gathered.
inline constexpr std::int64_t kLargestHeadMoment = 32768;

using Windows = std::vector<std::vector<std::int32_t>>;  ///< equal-length token windows

struct CollectOptions {
  /// also G (and C, frequency of the embedding): one backward pass per batch
  bool output_moments = false;
  /// nothing but H of the head: what a tied embedding needs before a walk
  bool only_head = false;
  std::uint64_t seed = 0;  ///< of the Fisher sketch
  std::int64_t batch = 0;  ///< windows at once; 0: chosen from the model's size
  /// its processes share the batches; all get the signals of all windows
  distribute::Group group = {};
};

/// Static signals: moments of the model as it is, block by block; memory is that of one block and
/// of the residual streams of all windows. With output_moments the whole model and the activations
/// of one batch are in memory. Draft blocks (MTP) get H, never G: what they put out is not the
/// model's distribution.
///
/// G comes from a sketch of the softmax Fisher: per token e ∈ {−1,+1}^V, z = √p∘e − p(√p·e) is sent
/// back through the logits, E[z zᵀ] = diag(p) − p pᵀ, so no labels are needed. The head's own G is
/// E[diag(p) − p pᵀ], its diagonal for vocabularies above kLargestHeadMoment; model and text hash
/// are left to the caller.
///
/// Errors   Error(kBadUsage) if there are no windows or they differ in length.
Signals collect(model::Model& model, const Windows& windows, const CollectOptions& options = {},
                const Progress& progress = {});

/// What the drift-aware walk knows of one stage (a group of matrices that read the same input) when
/// it is solved. x_q, x_f: that input in the quantized-so-far and in the original model.
struct StageMoments {
  std::int64_t block = 0;  ///< −1: the head
  model::Stage names;      ///< matrices of the stage
  torch::Tensor h;         ///< E[x_q x_qᵀ], [cols, cols]
  /// E[(x_f − x_q) x_qᵀ], [cols, cols]: of matrices whose product goes on into the block
  torch::Tensor input_drift;
  /// E[(W x_f + r_f − W x_q − r_q) x_qᵀ], [D, cols]: of one whose product is added to the residual
  /// stream r as it is
  torch::Tensor output_drift;
  std::int64_t n_tokens = 0;
};

struct WalkOptions {
  /// its processes share the windows; `solve` gets the moments of all of them in each
  distribute::Group group = {};
  /// also input_drift and output_drift: carry the original model's stream beside the quantized one
  bool drift = true;
  std::int64_t batch = 0;  ///< windows at once; 0: chosen from their length
  /// Inputs of an output projection are kept while it is solved if they take no more than this;
  /// else computed again.
  std::uint64_t keep_bytes = std::uint64_t{4} << 30;
  /// Whether the moments of a stage are wanted; where they are not (its matrices are solved
  /// already), `solve` gets undefined ones.
  std::function<bool(const model::Stage& names)> wanted;
};

/// Walks the model block by block, stage by stage, with everything in front already quantized.
///
/// `solve` gets the moments of a stage and puts the quantized weights in place with
/// model.weights().set() before it returns; the walk then goes on with them. The embedding must be
/// in place before; a head of its own comes behind the blocks, as a stage of block −1, then draft
/// blocks (MTP).
///
/// Memory   residual streams of all windows (twice with drift), one block of weights (twice with
///          drift: the original runs as a second Model on the same file), keep_bytes. What was
///          set() stays set: reset() it to save memory.
/// Errors   Error(kBadUsage) if there are no windows or they differ in length.
void walk(model::Model& model, const Windows& windows, const WalkOptions& options,
          const std::function<void(const StageMoments&)>& solve, const Progress& progress = {});

}  // namespace spectralquant::calibrate
