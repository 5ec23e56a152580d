#pragma once
// Small problems for the tests of the solver: moments as activations and gradients have them.
#include <torch/types.h>

#include <string>
#include <vector>

#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {

/// Second moment of `samples` correlated vectors; singular when samples < n.
inline torch::Tensor test_moment(std::int64_t n, std::int64_t samples) {
  const torch::Tensor mix = torch::randn({8, n});
  const torch::Tensor x = torch::randn({samples, 8}).matmul(mix) +
                          torch::randn({samples, n}) * torch::linspace(.2, 1.5, n);
  return x.t().matmul(x) / static_cast<double>(samples);
}

enum class Kind { kOneSided, kDiagonal, kTwoSided, kTied, kTwoSidedTied, kTwoSidedDiagonal };
inline const std::vector<Kind> kAllKinds = {Kind::kOneSided,     Kind::kDiagonal,
                                            Kind::kTwoSided,     Kind::kTied,
                                            Kind::kTwoSidedTied, Kind::kTwoSidedDiagonal};

inline std::string name_of(Kind kind) {
  static const char* names[] = {"one-sided", "diagonal",       "two-sided",
                                "tied",      "two-sided tied", "two-sided diagonal"};
  return names[static_cast<int>(kind)];
}

inline Problem test_problem(Kind kind, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  torch::manual_seed(seed);
  Problem problem;
  problem.target = torch::randn({rows, cols}) * .05 * (1 + torch::rand({rows, 1}));
  problem.h = test_moment(cols, 2 * cols);
  if (kind == Kind::kDiagonal || kind == Kind::kTwoSidedDiagonal)
    problem.h = problem.h.diagonal().contiguous();
  if (kind == Kind::kTwoSided || kind == Kind::kTwoSidedTied || kind == Kind::kTwoSidedDiagonal)
    problem.g = test_moment(rows, 4 * rows) * 1e-5;
  if (kind == Kind::kTied || kind == Kind::kTwoSidedTied) {
    problem.c = test_moment(cols, cols) * 1e-3;
    problem.frequency = torch::rand({rows}).pow(3) * (kind == Kind::kTied ? 1000 : .01);
    if (kind == Kind::kTied) problem.c_target = problem.target + torch::randn({rows, cols}) * .002;
  }
  return problem;
}

inline bool same(const format::GridMatrix& a, const format::GridMatrix& b) {
  return a.codes == b.codes && a.scales == b.scales && a.mins == b.mins && a.d == b.d &&
         a.dmin == b.dmin;
}

}  // namespace spectralquant::quantize
