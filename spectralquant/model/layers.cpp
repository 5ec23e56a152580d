#include "spectralquant/model/layers.h"

#include "spectralquant/model/fused_kernels.h"
#include "spectralquant/model/fused_layers.h"

namespace spectralquant::model {

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
  if (fused::can_run(x) && x.size(-1) % 2 == 0) return fused::rms_norm(x, weight, eps);
  const auto wide = x.to(torch::kFloat32);
  const auto scale = torch::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return (wide * scale * weight.to(torch::kFloat32)).to(x.scalar_type());
}

torch::Tensor l2_norm(const torch::Tensor& x, double eps) {
  const auto wide = x.to(torch::kFloat32);
  // Bounding the square keeps the gradient finite for a vector of zeros, where that of the norm is
  // not.
  return wide * torch::rsqrt(wide.square().sum(-1, /*keepdim=*/true).clamp_min(eps * eps));
}

torch::Tensor causal_conv(const torch::Tensor& x, const torch::Tensor& weight,
                          torch::Tensor* state) {
  const auto n_tokens = x.size(1), n_channels = x.size(2), width = weight.size(1);
  if (!state && fused::can_run(x) && width <= fused::kMostTaps)
    return fused::causal_conv(x, weight);
  const auto before = state ? state->to(x.scalar_type())
                            : torch::zeros({x.size(0), width - 1, n_channels}, x.options());
  const auto padded = torch::cat({before, x}, 1);
  if (state) *state = padded.narrow(1, n_tokens, width - 1).clone();
  const auto w = weight.to(x.scalar_type());
  // A sum of shifted products: with a handful of taps it outruns the general convolution, which
  // transposes on the CPU.
  auto y = padded.narrow(1, 0, n_tokens) * w.select(1, 0);
  for (std::int64_t j = 1; j < width; ++j)
    y = torch::addcmul(y, padded.narrow(1, j, n_tokens), w.select(1, j));
  return y;
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  if (fused::can_run(gate) && gate.scalar_type() == up.scalar_type())
    return fused::swiglu(gate, up);
  return torch::silu(gate) * up;
}

}  // namespace spectralquant::model
