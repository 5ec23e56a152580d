#include <gtest/gtest.h>

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
  for (const Kind kind : kFullKinds) {
    const Problem problem = test_problem(kind, 96, 512, 7);
    const Solution batched = solve_batched(problem, {}, torch::kCPU), rows = solve(problem, {});
    // groups of coupled rows are larger here
    EXPECT_LT(batched.objective, (problem.g.defined() ? 1.25 : 1.04) * rows.objective)
        << name_of(kind);
    EXPECT_GT(batched.objective, 0.9 * rows.objective) << name_of(kind);
  }
}

TEST(BatchedSolver, IsNeverWorseThanItsRoundingsAndReportsTheObjectiveOfTheCells) {
  for (const Kind kind : kFullKinds) {
    const Problem problem = test_problem(kind, 40, 256, 3);
    const Solution solution = solve_batched(problem, {}, torch::kCPU);
    EXPECT_LE(solution.objective, solution.plain_objective) << name_of(kind);
    EXPECT_LE(solution.objective, solution.imatrix_objective) << name_of(kind);
    EXPECT_NEAR(solution.objective, objective(problem, solution.matrix), 1e-6 * solution.objective)
        << name_of(kind);
  }
}

TEST(BatchedSolver, ItsRoundingIsAboutAsGoodAsLlamaCpps) {
  const Problem problem = test_problem(Kind::kOneSided, 64, 512, 5);
  const Solution batched = solve_batched(problem, {}, torch::kCPU), rows = solve(problem, {});
  EXPECT_LT(batched.plain_objective, 1.1 * rows.plain_objective);
  EXPECT_LT(batched.imatrix_objective, 1.1 * rows.imatrix_objective);
}

TEST(BatchedSolver, MoreRoundsNeverRaiseTheObjective) {
  const Problem problem = test_problem(Kind::kTwoSidedTied, 64, 256, 11);
  double before = 0;
  for (const int rounds : {0, 1, 3}) {
    SolverOptions options;
    options.rounds = rounds;
    const double now = solve_batched(problem, options, torch::kCPU).objective;
    if (rounds > 0) {
      EXPECT_LE(now, before);
    }
    before = now;
  }
}

TEST(BatchedSolver, SurvivesDegenerateMatrices) {
  Problem problem = test_problem(Kind::kTwoSided, 32, 256, 2);
  problem.target[0].zero_();
  problem.target[1].fill_(.25f);
  problem.target[2].mul_(1e7f);
  problem.h.slice(0, 0, 64).zero_();
  problem.h.slice(1, 0, 64).zero_();
  const Solution solution = solve_batched(problem, {}, torch::kCPU);
  EXPECT_TRUE(std::isfinite(solution.objective));
  Problem nothing = test_problem(Kind::kOneSided, 8, 256, 2);
  nothing.h.zero_();
  EXPECT_EQ(solve_batched(nothing, {}, torch::kCPU).objective, 0);
}

TEST(BatchedSolver, RefusesWhatTheRowSolverRefuses) {
  Problem problem = test_problem(Kind::kOneSided, 8, 256, 2);
  problem.target[3][5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(solve_batched(problem, {}, torch::kCPU), Error);
}

}  // namespace
}  // namespace spectralquant::quantize
