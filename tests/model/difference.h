#pragma once
#include <torch/types.h>

namespace spectralquant::model {

/// The largest difference of two values in the same place.
inline double difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>();
}

}  // namespace spectralquant::model
