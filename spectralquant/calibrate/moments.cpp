#include "spectralquant/calibrate/moments.h"

#include <algorithm>

namespace spectralquant::calibrate {
namespace {

/// Columns to a tile of a symmetric product, whose lower triangle is not computed: 128 still fill a
/// matrix product.
constexpr std::int64_t kTile = 128;

/// Rows of a mean that are computed at once.
constexpr std::int64_t kStrip = 512;

/// sum / n in float32.
torch::Tensor divided(const torch::Tensor& sum, double n, bool symmetric) {
  torch::Tensor mean = torch::empty(sum.sizes(), sum.options().dtype(torch::kFloat32));
  // In strips: a float64 copy would be the largest thing in memory.
  for (std::int64_t first = 0; first < sum.size(0); first += kStrip) {
    const std::int64_t last = std::min(first + kStrip, sum.size(0));
    torch::Tensor strip = sum.slice(0, first, last) / n;
    // A matrix product may round its two triangles differently.
    if (symmetric) strip = (strip + (sum.slice(1, first, last) / n).t()) / 2;
    mean.slice(0, first, last).copy_(strip);
  }
  return mean.to(torch::kCPU);
}

torch::Tensor as_rows(const torch::Tensor& x) {
  return x.detach().reshape({-1, x.size(-1)}).to(torch::kFloat32);
}

}  // namespace

MomentPart::MomentPart(const torch::Tensor& a) : symmetric(true) {
  torch::NoGradGuard no_grad;
  const torch::Tensor rows = as_rows(a), columns = rows.t();
  const std::int64_t n = rows.size(1);
  count = rows.size(0);
  if (n <= kTile || !rows.device().is_cpu()) {
    product = columns.mm(rows);
    return;
  }
  product = torch::empty({n, n}, rows.options());
  for (std::int64_t first = 0; first < n; first += kTile) {
    const std::int64_t last = std::min(first + kTile, n);
    torch::Tensor strip = product.slice(0, first, last).slice(1, first);
    torch::mm_out(strip, columns.slice(0, first, last), rows.slice(1, first));
    if (last < n)
      product.slice(0, last).slice(1, first, last).copy_(strip.slice(1, last - first).t());
  }
}

MomentPart::MomentPart(const torch::Tensor& a, const torch::Tensor& b) {
  torch::NoGradGuard no_grad;
  const torch::Tensor fa = as_rows(a), fb = as_rows(b);
  TORCH_CHECK(fa.size(0) == fb.size(0), "MomentPart: ", fa.size(0), " and ", fb.size(0),
              " vectors");
  product = fa.t().mm(fb);
  count = fa.size(0);
}

void Moment::add(const MomentPart& part) {
  torch::NoGradGuard no_grad;
  if (!sum_.defined())
    sum_ = torch::zeros(part.product.sizes(), part.product.options().dtype(torch::kFloat64));
  sum_.add_(part.product);
  count_ += part.count;
  symmetric_ = symmetric_ && part.symmetric;
}

void Moment::add(const Moment& other) {
  if (!other.sum_.defined()) return;
  torch::NoGradGuard no_grad;
  if (!sum_.defined()) sum_ = torch::zeros_like(other.sum_);
  sum_.add_(other.sum_);
  count_ += other.count_;
  symmetric_ = symmetric_ && other.symmetric_;
}

void Moment::sum_over(const distribute::Group& group, torch::Device device) {
  if (group.alone()) return;
  torch::NoGradGuard no_grad;
  // What has nothing does not know the sizes either: every process writes a row of what it knows.
  torch::Tensor facts = torch::zeros({group.size(), 4}, torch::kInt64);
  if (sum_.defined())
    facts[group.rank()] =
        torch::tensor({sum_.size(0), sum_.size(1), count_, std::int64_t{!symmetric_}});
  group.sum(facts);
  count_ = facts.select(1, 2).sum().item<std::int64_t>();
  if (count_ == 0) return;
  symmetric_ = facts.select(1, 3).sum().item<std::int64_t>() == 0;
  const auto rows = facts.select(1, 0).max().item<std::int64_t>(),
             cols = facts.select(1, 1).max().item<std::int64_t>();
  if (!sum_.defined())
    sum_ = torch::zeros({rows, cols}, torch::dtype(torch::kFloat64).device(device));
  group.sum(sum_);
}

torch::Tensor Moment::mean() const {
  if (!sum_.defined()) return {};
  torch::NoGradGuard no_grad;
  return divided(sum_, static_cast<double>(count_), symmetric_);
}

torch::Tensor Moment::mean_beside(const Moment& all_experts) const {
  if (!all_experts.sum_.defined()) return {};
  torch::NoGradGuard no_grad;
  const double n_shared = kSharedShare * static_cast<double>(all_experts.sum_.size(1)),
               factor = n_shared / static_cast<double>(all_experts.count_);
  torch::Tensor sum = all_experts.sum_ * factor;
  if (sum_.defined()) sum.add_(sum_);
  return divided(sum, static_cast<double>(count_) + n_shared, all_experts.symmetric_);
}

}  // namespace spectralquant::calibrate
