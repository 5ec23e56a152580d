#include "spectralquant/tune/parameter.h"

#include <algorithm>
#include <cmath>

namespace spectralquant::tune {
namespace {

/// Values worked on at once.
constexpr std::int64_t kPieceValues = std::int64_t{1} << 24;

}  // namespace

void adam_step(Parameter& parameter, double rate, std::int64_t step, const AdamOptions& options) {
  if (!parameter.gradient.defined()) return;
  torch::NoGradGuard no_grad;
  if (!parameter.mean.defined()) {
    parameter.mean = torch::zeros_like(parameter.value);
    parameter.square = torch::zeros_like(parameter.value);
  }
  parameter.mean.mul_(options.beta1).add_(parameter.gradient, 1 - options.beta1);
  parameter.square.mul_(options.beta2)
      .addcmul_(parameter.gradient, parameter.gradient, 1 - options.beta2);
  parameter.gradient.reset();

  const double steps = static_cast<double>(step + 1);
  const double mean_share = 1 - std::pow(options.beta1, steps),
               square_share = 1 - std::pow(options.beta2, steps);
  // Zero gradients everywhere leave 0 / floor = 0.
  const auto floor =
      (parameter.square.mean().div_(square_share).sqrt_().mul_(options.damping)).clamp_min_(1e-30);
  const std::int64_t rows = parameter.value.size(0),
                     step_rows = std::max<std::int64_t>(
                         1,
                         kPieceValues * rows / std::max<std::int64_t>(1, parameter.value.numel()));
  for (std::int64_t first = 0; first < rows; first += step_rows) {
    const std::int64_t last = std::min(first + step_rows, rows);
    torch::Tensor root =
        parameter.square.slice(0, first, last).div(square_share).sqrt_().add_(floor);
    torch::Tensor change = parameter.mean.slice(0, first, last).div(root).mul_(rate / mean_share);
    if (parameter.unit.defined()) change.mul_(parameter.unit.slice(0, first, last));
    parameter.value.slice(0, first, last).sub_(change);
  }
}

}  // namespace spectralquant::tune
