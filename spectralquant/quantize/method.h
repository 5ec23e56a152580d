#pragma once
#include <cstdint>

/// The constants of the method, once for every solver: what each is for is in docs/method.md,
/// section 4.
namespace spectralquant::quantize {

/// Added to the diagonals of H and G at the least, as a share of their means.
inline constexpr double kLeastDamping = 1e-6;

/// Pairs (scale, min) that the sweeps try; a format without mins has as many scales.
inline constexpr int kCandidates = 16;

/// A candidate: the pair (flip · scale + up, min + min_up); in a format without scales
/// (flip + up · Numbers::step_of_d) · d.
struct Step {
  int flip, up, min_up;
};

/// The pair, its eight neighbours, and the nearest beyond them.
inline constexpr Step kPairSteps[kCandidates] = {
    {1, 0, 0},  {1, 1, 0}, {1, -1, 0},  {1, 0, 1}, {1, 0, -1}, {1, 1, 1}, {1, -1, -1}, {1, 1, -1},
    {1, -1, 1}, {1, 2, 1}, {1, -2, -1}, {1, 2, 0}, {1, -2, 0}, {1, 0, 2}, {1, 0, -2},  {1, 1, 2}};

/// Where there is no min and a step has a sign: the scale and what is near, and the same with the
/// other sign. The codes reach further to one side, and the sign says to which.
inline constexpr Step kSignedSteps[kCandidates] = {
    {1, 0, 0},  {1, 1, 0},   {1, -1, 0}, {1, 2, 0},  {1, -2, 0}, {1, 3, 0},
    {1, -3, 0}, {1, 4, 0},   {1, -4, 0}, {1, 5, 0},  {1, -5, 0}, {-1, 0, 0},
    {-1, 1, 0}, {-1, -1, 0}, {-1, 2, 0}, {-1, -2, 0}};

/// Steps of the sweeps in a format F.
template <class F>
inline constexpr const Step (&kNeighbours)[kCandidates] = F::kHasSignedSteps ? kSignedSteps
                                                                             : kPairSteps;

/// The largest radius of the start, and room for its steps.
inline constexpr int kMaxRadius = 7,
                     kMaxSteps = (2 * kMaxRadius + 1) * (2 * kMaxRadius + 1) + kCandidates;

/// Steps of the start: everything within ± radius, the nearest first, so that early ones give a
/// good bound. Returns how many; the rest up to whole sets of kCandidates are zero steps.
inline int steps_within(int radius, bool has_min, bool has_signed_steps, Step* out) {
  radius = radius < 0 ? 0 : radius > kMaxRadius ? kMaxRadius : radius;
  const int min_radius = has_min ? radius : 0;
  int n = 0;
  for (int distance = 0; distance <= radius + min_radius; ++distance) {
    for (int up = -radius; up <= radius; ++up) {
      for (int min_up = -min_radius; min_up <= min_radius; ++min_up) {
        if ((up < 0 ? -up : up) + (min_up < 0 ? -min_up : min_up) != distance) continue;
        out[n++] = {1, up, min_up};
        if (has_signed_steps && radius > 0) out[n++] = {-1, up, min_up};
      }
    }
  }
  for (int k = n; k % kCandidates != 0; ++k) out[k] = {1, 0, 0};
  return n;
}

/// Passes of coordinate descent over the codes after a block's search, and inside a super-block's.
inline constexpr int kBlockPolish = 2, kSuperPolish = 1;

/// A gain below this share of what the block is above its best real values is float noise.
inline constexpr float kNoise = 1e-6f;

/// Factors tried on d, then on dmin. Single numbers, as kernels on a device need them.
inline constexpr int kRatios = 4;
inline constexpr float kMuchSmaller = 0.96f, kSmaller = 0.985f, kLarger = 1.015f,
                       kMuchLarger = 1.04f;
inline constexpr float kRatio[kRatios] = {kMuchSmaller, kSmaller, kLarger, kMuchLarger};

/// The largest finite fp16.
inline constexpr float kLargestHalf = 65504.f;

/// Rows whose moves are proposed at the same time when rows are coupled by G. Part of the method,
/// not of the machine: the result depends on it, so it does not follow the number of threads.
inline constexpr std::int64_t kGroupRows = 16;

}  // namespace spectralquant::quantize
