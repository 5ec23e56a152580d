#include "spectralquant/calibrate/moments.h"

namespace spectralquant::calibrate {

void Moment::add(const torch::Tensor& a, const torch::Tensor& b) {
  torch::NoGradGuard no_grad;
  const torch::Tensor fa = a.detach().reshape({-1, a.size(-1)}).to(torch::kFloat32);
  const bool same = a.is_same(b);
  const torch::Tensor fb = same ? fa : b.detach().reshape({-1, b.size(-1)}).to(torch::kFloat32);
  TORCH_CHECK(fa.size(0) == fb.size(0), "Moment::add: ", fa.size(0), " and ", fb.size(0), " vectors");
  const torch::Tensor product = fa.t().mm(fb);
  if (!sum_.defined()) sum_ = torch::zeros(product.sizes(), product.options().dtype(torch::kFloat64));
  sum_.add_(product);
  count_ += fa.size(0);
  symmetric_ = symmetric_ && same;
}

torch::Tensor Moment::mean() const {
  if (!sum_.defined()) return {};
  torch::NoGradGuard no_grad;
  torch::Tensor mean = sum_ / static_cast<double>(count_);
  // A matrix product may round its two triangles differently.
  if (symmetric_) mean = (mean + mean.t()) / 2;
  return mean.to(torch::kCPU, torch::kFloat32).contiguous();
}

}  // namespace spectralquant::calibrate
