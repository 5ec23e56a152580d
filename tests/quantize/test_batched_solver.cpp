#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <cmath>
#include <limits>

#include "spectralquant/core/error.h"
#include "spectralquant/quantize/batched_solver.h"
#include "tests/quantize/solver_problems.h"

namespace spectralquant::quantize {
namespace {

const std::vector<Kind> kFullKinds = {Kind::kOneSided, Kind::kTwoSided, Kind::kTied,
                                      Kind::kTwoSidedTied};

TEST(BatchedSolver, ReachesWhatTheRowSolverReaches) {
  for (const format::Grid* grid : format::all_grids()) {
    for (const Kind kind : kFullKinds) {
      SCOPED_TRACE(format::name_of(*grid) + " " + name_of(kind));
      Problem problem = test_problem(kind, 96, 512, 7);
      problem.grid = grid;
      const Solution batched = solve_batched(problem, {}, torch::kCPU), rows = solve(problem, {});
      // groups of coupled rows are larger here
      EXPECT_LT(batched.objective, (problem.g.defined() ? 1.25 : 1.04) * rows.objective);
      EXPECT_GT(batched.objective, 0.9 * rows.objective);
      // both begin with llama.cpp's roundings
      EXPECT_NEAR(batched.plain_objective / rows.plain_objective, 1, 1e-4);
      EXPECT_NEAR(batched.imatrix_objective / rows.imatrix_objective, 1, 1e-4);
    }
  }
}

TEST(BatchedSolver, ReachesOnAGpuWhatItReachesOnTheHost) {
  if (!torch::cuda::is_available() || !has_batched_kernels(torch::kCUDA))
    GTEST_SKIP() << "no CUDA device, or a build without kernels for one";
  for (const format::Grid* grid : format::all_grids()) {
    for (const Kind kind : kFullKinds) {
      SCOPED_TRACE(format::name_of(*grid) + " " + name_of(kind));
      Problem problem = test_problem(kind, 96, 512, 7);
      problem.grid = grid;
      const Solution host = solve_batched(problem, {}, torch::kCPU),
                     gpu = solve_batched(problem, {}, torch::kCUDA);
      EXPECT_NEAR(gpu.plain_objective / host.plain_objective, 1, 1e-4);
      // last bits differ, and with them some choices
      EXPECT_NEAR(gpu.objective_start / host.objective_start, 1, .02);
      EXPECT_NEAR(gpu.objective / host.objective, 1, .05);
    }
  }
}

TEST(BatchedSolver, IsNeverWorseThanRoundingsAndReportsTheObjectiveOfTheCells) {
  for (const format::Grid* grid : format::all_grids()) {
    for (const Kind kind : kFullKinds) {
      SCOPED_TRACE(format::name_of(*grid) + " " + name_of(kind));
      Problem problem = test_problem(kind, 40, 256, 3);
      problem.grid = grid;
      const Solution solution = solve_batched(problem, {}, torch::kCPU);
      EXPECT_LE(solution.objective, solution.plain_objective);
      EXPECT_LE(solution.objective, solution.imatrix_objective);
      EXPECT_NEAR(solution.objective, objective(problem, solution.matrix),
                  1e-6 * solution.objective);
    }
  }
}

TEST(BatchedSolver, MoreRoundsNeverRaiseTheObjective) {
  for (const format::Grid* grid : format::all_grids()) {
    Problem problem = test_problem(Kind::kTwoSidedTied, 64, 256, 11);
    problem.grid = grid;
    double before = 0;
    for (const int rounds : {0, 1, 3}) {
      SolverOptions options;
      options.rounds = rounds;
      const double now = solve_batched(problem, options, torch::kCPU).objective;
      if (rounds > 0) {
        EXPECT_LE(now, before) << format::name_of(*grid);
      }
      before = now;
    }
  }
}

TEST(BatchedSolver, SurvivesDegenerateMatrices) {
  for (const format::Grid* grid : format::all_grids()) {
    Problem problem = test_problem(Kind::kTwoSided, 32, 256, 2);
    problem.grid = grid;
    problem.target[0].zero_();
    problem.target[1].fill_(.25f);
    problem.target[2].mul_(1e7f);
    problem.h.slice(0, 0, 64).zero_();
    problem.h.slice(1, 0, 64).zero_();
    const Solution solution = solve_batched(problem, {}, torch::kCPU);
    EXPECT_TRUE(std::isfinite(solution.objective)) << format::name_of(*grid);
    Problem nothing = test_problem(Kind::kOneSided, 8, 256, 2);
    nothing.grid = grid;
    nothing.h.zero_();
    EXPECT_EQ(solve_batched(nothing, {}, torch::kCPU).objective, 0);
  }
}

TEST(BatchedSolver, RefusesWhatTheRowSolverRefuses) {
  Problem problem = test_problem(Kind::kOneSided, 8, 256, 2);
  problem.target[3][5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(solve_batched(problem, {}, torch::kCPU), Error);
}

}  // namespace
}  // namespace spectralquant::quantize
