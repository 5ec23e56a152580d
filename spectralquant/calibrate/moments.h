#pragma once
#include <torch/torch.h>

#include <cstdint>

namespace spectralquant::calibrate {

/// Running second moment Σ a bᵀ of vectors that belong together, summed in float64 from float32 products of one batch.
///
/// Shapes   add(a: [.., n], b: [.., m]); mean(): [n, m] float32.
class Moment {
 public:
  void add(const torch::Tensor& a, const torch::Tensor& b);
  void add(const torch::Tensor& a) { add(a, a); }
  /// Σ a bᵀ / count on the CPU, exactly symmetric where a was b throughout; undefined tensor if nothing was added.
  torch::Tensor mean() const;
  std::int64_t count() const { return count_; }

 private:
  torch::Tensor sum_;
  std::int64_t count_ = 0;
  bool symmetric_ = true;
};

}  // namespace spectralquant::calibrate
