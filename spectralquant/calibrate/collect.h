#pragma once
#include <cstdint>
#include <vector>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/calibrate/spill.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/model/model.h"

namespace spectralquant::calibrate {

using Windows = std::vector<std::vector<std::int32_t>>;  ///< equal-length token windows

struct CollectOptions {
  /// also G (and C, frequency of the embedding): a backward pass, block by block
  bool output_moments = false;
  /// no H but that of the head, which a tied embedding needs before a walk
  bool only_head = false;
  std::uint64_t seed = 0;  ///< of the Fisher sketch
  std::int64_t batch = 0;  ///< windows at once; 0: chosen from the model's size
  /// its processes share the batches; all get the signals of all windows
  distribute::Group group = {};
  Spill spill = {};  ///< for moments that are finished, and for long streams
};

/// Static signals: moments of the model as it is, block by block. Draft blocks (MTP) get H, never
/// G: what they put out is not the model's distribution.
///
/// G comes from a sketch of the softmax Fisher: per token e ∈ {−1,+1}^V, z = √p∘e − p(√p·e) is sent
/// back through the logits, E[z zᵀ] = diag(p) − p pᵀ, so no labels are needed. Of the head's own G,
/// E[diag(p) − p pᵀ], the diagonal is gathered: the whole of it was no better (docs/method.md).
/// Model and text hash are left to the caller.
///
/// Memory   with a folder to spill to that of one block, its moments and its batches, whatever the
///          depth; at both ends the embedding or the head. Without one also all moments, and, with
///          output_moments, the residual streams in front of every block.
/// Errors   Error(kBadUsage) if there are no windows or they differ in length.
Signals collect(model::Model& model, const Windows& windows, const CollectOptions& options = {},
                const Progress& progress = {});

}  // namespace spectralquant::calibrate
