#pragma once
#include <cstdint>
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

}  // namespace spectralquant::calibrate
