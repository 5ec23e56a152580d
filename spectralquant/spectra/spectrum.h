#pragma once
#include <torch/types.h>

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace spectralquant::spectra {

/// "The top 1, 5, 20 % of the directions".
inline constexpr std::array<double, 3> kTopShares{0.01, 0.05, 0.20};

/// Up to this size a moment is decomposed exactly; a larger one takes minutes and is estimated from
/// a random subspace.
inline constexpr std::int64_t kLargestExact = 2048;

/// Directions that are followed at most: 20 % of 5120.
inline constexpr std::int64_t kMostDirections = 1024;

/// Size of "the top share" of n directions: rounded to the nearest, at least 1.
std::int64_t top_count(double share, std::int64_t n);

/// Eigenvalues of a second moment E[a aᵀ], and the directions of the largest.
struct Spectrum {
  std::int64_t size = 0;
  double trace = 0;
  /// exp(−Σ p log p), p = λ / Σ λ: how many directions matter, from 1 (one direction) to size (all
  /// alike). 0 for a zero moment.
  double effective_rank = 0;
  /// (Σ λ)² / Σ λ²: the same question, weighing large eigenvalues more; never above effective_rank
  double participation_ratio = 0;
  /// Only the largest eigenvalues are known, from a random subspace. Trace and participation ratio
  /// are exact still; effective_rank is the largest that agrees with what is known, the unknown
  /// eigenvalues being taken as equal.
  bool estimated = false;
  std::vector<double> eigenvalues;  ///< descending, ≥ 0; `size` of them, fewer when estimated

  /// The largest eigenvalues' directions: columns of [size, k], or for a diagonal moment the k axes
  /// in `axes`, int64. k covers all of kTopShares that kMostDirections allows.
  torch::Tensor directions, axes;
  std::int64_t n_directions() const {
    return directions.defined() ? directions.size(1) : axes.size(0);
  }

  /// Coordinates of vectors along the directions. a: [m, size] → [m, k], in the type of a.
  torch::Tensor coordinates(const torch::Tensor& a) const;

  /// Σ of the `count` largest eigenvalues / trace; 0 for a zero moment. count ≤ eigenvalues.size().
  double share_of_top(std::int64_t count) const;
  /// Ranks (from 1) and eigenvalues at about `points` logarithmically spaced ranks, first and last
  /// always among them.
  std::vector<std::pair<std::int64_t, double>> curve(std::size_t points) const;
};

/// Shapes   moment: [n, n], symmetric and positive up to rounding; or [n]: a diagonal.
/// Errors   Error(kBadInput) if it is not of these shapes, or holds NaN or infinity.
/// Source   subspace iteration: Halko, Martinsson, Tropp, arXiv 0909.4061, algorithm 4.4.
Spectrum decompose(const torch::Tensor& moment);

/// decompose() by the estimate whatever the size: what the exact way is compared with.
Spectrum decompose_by_subspace(const torch::Tensor& moment);

}  // namespace spectralquant::spectra
