#pragma once
#include <torch/types.h>

#include <cstdint>

#include "spectralquant/distribute/group.h"

namespace spectralquant::calibrate {

/// Σ a bᵀ over the vectors of one batch: what batches that run side by side prepare, and
/// Moment::add() sums in their order.
struct MomentPart {
  torch::Tensor product;  ///< [n, m] float32
  std::int64_t count = 0;
  bool symmetric = false;

  MomentPart() = default;
  explicit MomentPart(const torch::Tensor& a);                 ///< Σ a aᵀ; a: [.., n]
  MomentPart(const torch::Tensor& a, const torch::Tensor& b);  ///< a: [.., n], b: [.., m]
};

/// How many vectors of the mean over all experts stand beside those of one expert, as a share of
/// their size (docs/method.md, section 2).
inline constexpr double kSharedShare = 0.125;

/// Running second moment Σ a bᵀ of vectors that belong together, summed in float64 from float32
/// products of one batch.
class Moment {
 public:
  void add(const MomentPart& part);
  void add(const Moment& other);
  void add(const torch::Tensor& a) { add(MomentPart(a)); }
  void add(const torch::Tensor& a, const torch::Tensor& b) { add(MomentPart(a, b)); }
  /// Adds up what the processes of the group have; afterwards all have the same. A process may have
  /// nothing.
  void sum_over(const distribute::Group& group, torch::Device device);
  /// Σ a bᵀ / count, [n, m] float32 on the CPU, exactly symmetric where a was b throughout;
  /// undefined tensor if nothing was added.
  torch::Tensor mean() const;
  /// The same of an expert, of which few vectors may be known: (Σ a bᵀ + κ M) / (count + κ), M the
  /// mean over all experts of the stage, κ = kSharedShare · n; undefined if those had no vector.
  torch::Tensor mean_beside(const Moment& all_experts) const;
  std::int64_t count() const { return count_; }

 private:
  torch::Tensor sum_;
  std::int64_t count_ = 0;
  bool symmetric_ = true;
};

}  // namespace spectralquant::calibrate
