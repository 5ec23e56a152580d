#pragma once
#include <torch/types.h>

#include <vector>

#include "spectralquant/evaluate/stored_logits.h"

namespace spectralquant::evaluate {

/// A model's predictions at n positions before the softmax: logits = hidden headᵀ. Shapes  hidden:
/// [n, D]; head: [V, D].
struct Predictions {
  torch::Tensor hidden, head;
};

/// What a candidate Q does to the predictions of a reference P, position by position. Shapes  all
/// [n]; on the device of the inputs.
struct Divergence {
  torch::Tensor loss;      ///< −log q(target), nats
  torch::Tensor kld;       ///< KL(P ‖ Q) = Σ_v p(v) (log p(v) − log q(v)), nats
  torch::Tensor delta_p;   ///< q(target) − p(target)
  torch::Tensor same_top;  ///< uint8: both put the same token first
};

/// Compares two predictions; on the CPU by the fused way, elsewhere by the plain one. A null q is P
/// itself: its loss, no divergence. Memory is bounded whatever the vocabulary: logits exist for a
/// tile of positions and tokens (fused) or a slice of positions (plain).
///
/// Shapes   p, q: the same n and V; targets: int64 [n].
/// Threads  pure; the products use torch's threads.
Divergence diverge(const Predictions& p, const Predictions* q, const torch::Tensor& targets);

/// The plain way: whole rows of logits, torch's own softmax. What the fused way is tested against.
Divergence diverge_plainly(const Predictions& p, const Predictions* q,
                           const torch::Tensor& targets);

/// The fused way, on the CPU: every tile of logits is read once while it lies in the cache. Sums
/// are kept relative to the highest logit so far and rescaled when a higher one comes, so that
///
///     KL = Σ e^(p − max p) (p − q) / Σ e^(p − max p) − logsumexp(p) + logsumexp(q)
///
/// needs no second pass. Equal logits give a divergence of exactly zero.
Divergence diverge_fused(const Predictions& p, const Predictions* q, const torch::Tensor& targets);

/// Compares with predictions that were stored in 16 bits, as llama-perplexity does: tokens of
/// log p ≤ −16 do not count, and probabilities are taken as they are stored, their sum being 1 but
/// for rounding. Only a slice of q's logits exists at a time. On the CPU by the fused way,
/// elsewhere by the plain one.
///
/// Shapes   p: one row a position, V levels each; q: logits of V tokens; targets: int64 [n].
Divergence diverge(const std::vector<StoredRow>& p, const Predictions& q,
                   const torch::Tensor& targets);
Divergence diverge_plainly(const std::vector<StoredRow>& p, const Predictions& q,
                           const torch::Tensor& targets);
Divergence diverge_fused(const std::vector<StoredRow>& p, const Predictions& q,
                         const torch::Tensor& targets);

/// −log p of a token, as stored.
inline float stored_loss(const StoredRow& row, std::int64_t token) {
  return -(row.lowest + row.step * static_cast<float>(row.levels[static_cast<std::size_t>(token)]));
}

}  // namespace spectralquant::evaluate
