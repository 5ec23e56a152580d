#pragma once
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/calibrate/collect.h"

namespace spectralquant::calibrate {

/// Tokens of a batch where nobody asks for another size.
inline constexpr std::int64_t kBatchTokens = 2048, kBatchTokensOnDevice = 16384;

/// Streams up to this size stay on an accelerator: copying them to the CPU and back takes longer
/// than a block.
inline constexpr std::int64_t kStreamBytesOnDevice = std::int64_t{6} << 30;

/// Residual streams of all windows between two blocks, in pieces of `batch` windows. Copies share
/// the pieces; to replace one leaves that of a copy as it was.
///
/// Shapes   pieces[i]: [≤ batch, T, D] float32, on the model's device while they take little of it,
///          else on the CPU, in memory or in files.
struct Streams {
  std::vector<torch::Tensor> pieces;
  std::vector<torch::Tensor> tokens;  ///< of the pieces, int64 [≤ batch, T]
  std::size_t first_batch = 0;        ///< number of the first piece, counted over all processes
  torch::Device home = torch::kCPU;
  Spill files;  ///< no folder: in memory

  /// The share of the group's process: whole batches, counted over all windows. `n_kept`: copies
  /// whose pieces the caller will keep at once.
  static Streams embed(model::Model& model, const Windows& windows, std::int64_t batch,
                       const distribute::Group& group, const Spill& spill, std::int64_t n_kept = 1);
  /// What draft block `block` starts from; these streams are behind the last of the other blocks.
  Streams draft(model::Model& model, std::int64_t block) const;
  torch::Tensor on_device(std::size_t piece, model::Model& model) const {
    return files.take(pieces[piece]).to(model.device(), model.dtype());
  }
  /// A tensor on its way out of a batch: as the pieces lie.
  torch::Tensor kept(const torch::Tensor& x) const {
    return files.put(x.detach().to(home, torch::kFloat32));
  }
  /// Chooses home and spill for pieces of so many bytes in all.
  void choose_place(std::int64_t bytes, torch::Device device, const Spill& spill);
  std::int64_t n_tokens() const;
};

/// Windows at once: `asked` if positive, else so many that a batch holds about kBatchTokens.
std::int64_t batch_windows(std::int64_t asked, const Windows& windows, const model::Model& model);

std::size_t n_batches(const Windows& windows, std::int64_t batch);

/// Errors   Error(kBadUsage) if there are no windows or they differ in length.
void require_windows(const Windows& windows);

/// The draft blocks that windows of this length reach: none if a window has no second token.
std::vector<std::int64_t> draft_blocks(const model::Architecture& architecture,
                                       const Windows& windows);

}  // namespace spectralquant::calibrate
