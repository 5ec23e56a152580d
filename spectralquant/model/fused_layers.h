#pragma once
#include <torch/types.h>

/// Layers of layers.h by the kernels of fused_kernels.h: differentiable, on a CUDA device only.
/// Where they cannot run, layers.h puts the same layer together from torch's operators.
///
/// x in float32 or bfloat16; sums are float32.
namespace spectralquant::model::fused {

/// Whether this build has the kernels, and they can run on such a tensor.
bool can_run(const torch::Tensor& x);

/// Shapes   x: [.., n], n even; weight: [n].
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// Shapes   gate, up: the same.
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

/// Shapes   x: [B, T, n]; weight: [n, K], K ≤ kMostTaps.
torch::Tensor causal_conv(const torch::Tensor& x, const torch::Tensor& weight);

}  // namespace spectralquant::model::fused
