#pragma once
#include <torch/types.h>

#include <cstdint>

/// Layers that architectures are put together from.
///
/// All are differentiable and run on any device; x in float32 or bfloat16, sums that need it
/// (norms, softmax, decay, recurrent state) in float32. Shape letters: B sequences, T new tokens, S
/// tokens seen in all, H heads, D head size.
namespace spectralquant::model {

/// x / sqrt(mean(x²) + eps) · weight over the last dimension. Shapes  x: [.., n]; weight: [n].
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// x / max(‖x‖, eps) over the last dimension, always in float32.
/// Source  ggml_l2_norm: eps bounds the norm, it is not added to its square.
torch::Tensor l2_norm(const torch::Tensor& x, double eps);

/// softmax(q kᵀ / sqrt(D), causal) v. Query head h reads key head h / (H / G); keys are never
/// repeated in memory, and scores exist for a tile of queries at a time (with gradients, autograd
/// keeps them all).
///
/// Shapes   q: [B, T, H, D]; k, v: [B, G, S, D], of which the last T belong to q; returns [B, T, H,
///          D].
torch::Tensor causal_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v);

/// Depthwise causal convolution y[t] = Σ_j weight[:, j] · x[t − K + 1 + j].
///
/// Shapes   x: [B, T, n]; weight: [n, K]; state: the K − 1 inputs before x, [B, K − 1, n], replaced
///          by the last K − 1 of (state, x). A null state means zeros and is not returned.
torch::Tensor causal_conv(const torch::Tensor& x, const torch::Tensor& weight,
                          torch::Tensor* state);

/// Gated delta rule: S ← e^g S + β k (v − e^g Sᵀk)ᵀ, output Sᵀq, token after token.
///
/// Evaluated in chunks of kDeltaChunk tokens with a triangular solve inside each (stable when keys
/// repeat), a single token directly. Value heads are tiled: value head h reads key head h mod H_k,
/// as GGUF files have them.
///
/// Shapes   q, k: [B, T, H_k, D]; v: [B, T, H_v, E]; log_decay (g ≤ 0, float32), beta: [B, T, H_v];
///          state: [B, H_v, D, E] float32, replaced by the state after the last token; null means
///          zeros.
/// Returns  [B, T, H_v, E] in v's type.
/// Source   Yang et al., Gated Delta Networks, arXiv 2412.06464, section 3.
torch::Tensor gated_delta_rule(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& log_decay,
                               const torch::Tensor& beta, torch::Tensor* state);

/// (I + A)⁻¹, A the part of each matrix below its diagonal; nothing else of it is read.
///
/// by_products: by matrix products instead of a triangular solve, as is done on accelerators. Both
/// as stable as substitution.
/// Shapes   system: [.., n, n].
torch::Tensor unit_lower_inverse(const torch::Tensor& system, bool by_products);

/// tokens per chunk, as in the paper's and Hugging Face's kernels
inline constexpr std::int64_t kDeltaChunk = 64;

/// silu(gate) · up.
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

}  // namespace spectralquant::model
