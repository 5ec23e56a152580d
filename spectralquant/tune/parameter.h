#pragma once
#include <torch/types.h>

#include <cstdint>

namespace spectralquant::tune {

/// A tensor that tuning changes, with Adam's state beside it. All of it is float32, on one device,
/// n rows along the first dimension.
struct Parameter {
  torch::Tensor value;
  /// what a rate of 1 means for each value, broadcast over it; undefined: 1
  torch::Tensor unit;
  /// running means of gradient and gradient²; undefined before the first step
  torch::Tensor mean, square;

  Parameter() = default;
  explicit Parameter(torch::Tensor value, torch::Tensor unit = {})
      : value(std::move(value)), unit(std::move(unit)) {}
};

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.98;
  /// Share of the tensor's mean root of square that is added to the root of each value's own: what
  /// hardly matters hardly moves, where Adam's constant would let it move as far as the rest.
  double damping = 0.1;
};

/// One step of Adam: value −= rate · unit · m̂ / (√v̂ + damping · mean(√v̂)).
///
/// `step` counts from 0. Works through the rows in pieces, so that temporaries stay small beside
/// the tensors.
/// Source   Kingma and Ba, arXiv 1412.6980.
void adam_step(Parameter& parameter, const torch::Tensor& gradient, double rate, std::int64_t step,
               const AdamOptions& options);

}  // namespace spectralquant::tune
