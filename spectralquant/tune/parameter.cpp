#include "spectralquant/tune/parameter.h"

#include <algorithm>
#include <cmath>

namespace spectralquant::tune {
namespace {

/// Values worked on at once.
constexpr std::int64_t kPieceValues = std::int64_t{1} << 24;

}  // namespace

void adam_step(Parameter& parameter, const torch::Tensor& gradient, double rate, std::int64_t step,
               const AdamOptions& options) {
  torch::NoGradGuard no_grad;
  if (!parameter.mean.defined()) {
    parameter.mean = torch::zeros_like(parameter.value);
    parameter.square = torch::zeros_like(parameter.value);
  }
  parameter.mean.lerp_(gradient, 1 - options.beta1);
  parameter.square.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);

  const double steps = static_cast<double>(step + 1);
  const double mean_share = 1 - std::pow(options.beta1, steps),
               square_share = 1 - std::pow(options.beta2, steps);
  const std::int64_t rows = parameter.value.size(0),
                     values = std::max<std::int64_t>(1, parameter.value.numel()),
                     piece = std::max<std::int64_t>(1, kPieceValues * rows / values);
  // With rate / mean_share · √square_share before the fraction no root has to be divided.
  torch::Tensor floor, root;
  for (std::int64_t first = 0; first < rows; first += piece) {
    root = parameter.square.slice(0, first, std::min(first + piece, rows)).sqrt();
    floor = floor.defined() ? floor + root.sum() : root.sum();
  }
  // Zero gradients everywhere leave 0 / floor = 0.
  floor = floor.mul_(options.damping / static_cast<double>(values)).clamp_min_(1e-20);
  const double factor = rate / mean_share * std::sqrt(square_share);
  for (std::int64_t first = 0; first < rows; first += piece) {
    const std::int64_t last = std::min(first + piece, rows);
    if (piece < rows) root = parameter.square.slice(0, first, last).sqrt();
    torch::Tensor change = parameter.mean.slice(0, first, last).div(root.add_(floor));
    if (parameter.unit.defined()) {
      const torch::Tensor& unit = parameter.unit;
      change.mul_(unit.size(0) == rows ? unit.slice(0, first, last) : unit);
    }
    parameter.value.slice(0, first, last).sub_(change, factor);
  }
}

}  // namespace spectralquant::tune
