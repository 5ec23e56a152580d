#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "spectralquant/format/formats.h"
#include "spectralquant/quantize/fix_columns.h"
#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {
namespace {

struct Case {
  torch::Tensor weight, h;
};

Case random_case(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  torch::manual_seed(seed);
  const torch::Tensor mix = torch::randn({cols, cols}) / std::sqrt(static_cast<double>(cols)),
                      x = torch::randn({4 * cols, cols}).mm(mix + 0.5 * torch::eye(cols));
  return {torch::randn({rows, cols}) * 0.05, x.t().mm(x) / (4.0 * static_cast<double>(cols))};
}

double cost(const torch::Tensor& error, const torch::Tensor& h) {
  const torch::Tensor e = error.to(torch::kFloat64);
  return (e.mm(h.to(torch::kFloat64)) * e).sum().item<double>();
}

double cost(const PartialMatrix& matrix, const Case& of) {
  return cost(matrix.weight - of.weight, of.h);
}

std::vector<std::int64_t> part(const std::vector<std::int64_t>& order, std::size_t first,
                               std::size_t last) {
  return {order.begin() + static_cast<std::ptrdiff_t>(first),
          order.begin() + static_cast<std::ptrdiff_t>(last)};
}

/// The format where the others do not matter.
const format::Grid& kGrid = format::Q4_K::kGrid;

TEST(FixColumns, AllAtOnceIsAsGoodAsTheStartOfTheSolver) {
  for (const format::Grid* grid : format::all_grids()) {
    for (const std::uint64_t seed : {1, 2, 3}) {
      SCOPED_TRACE(format::name_of(*grid) + ", seed " + std::to_string(seed));
      const Case of = random_case(24, 512, seed);
      PartialMatrix matrix(*grid, of.weight.clone());
      std::vector<std::int64_t> columns(512);
      for (std::int64_t i = 0; i < 512; ++i) columns[static_cast<std::size_t>(i)] = i;
      fix_columns({&matrix}, columns, {of.h, {}, {}}, {.damping = 0.01, .headroom = 1});
      EXPECT_TRUE(matrix.all_fixed());
      SolverOptions options;
      options.rounds = 0;
      Problem problem;
      problem.target = of.weight;
      problem.h = of.h;
      problem.grid = grid;
      const Solution solution = solve(problem, options);
      EXPECT_NEAR(cost(matrix, of) / solution.objective_start, 1, 0.03);
      EXPECT_LT(cost(matrix, of), 0.8 * solution.imatrix_objective);
    }
  }
}

TEST(FixColumns, TheMatrixDecodesToWhatTheModelComputedWith) {
  for (const format::Grid* grid : format::all_grids()) {
    SCOPED_TRACE(format::name_of(*grid));
    const Case of = random_case(8, 256, 4);
    PartialMatrix matrix(*grid, of.weight.clone());
    const auto order = column_order(of.h);
    std::size_t done = 0;
    for (const std::size_t share :
         {std::size_t{16}, std::size_t{100}, std::size_t{252}, std::size_t{256}}) {
      fix_columns({&matrix}, part(order, done, share), {of.h, {}, {}});
      done = share;
      EXPECT_EQ(matrix.fixed.sum().item<std::int64_t>(), static_cast<std::int64_t>(share));
    }
    const format::GridMatrix packed = matrix.matrix();
    torch::Tensor decoded = torch::empty({8, 256});
    packed.decode(0, 8, decoded.data_ptr<float>());
    EXPECT_TRUE(torch::equal(decoded + 0.0, matrix.weight + 0.0));
  }
}

/// The plain version for one row whose scales are given: rounds the columns one after the other in
/// double, each time solving anew for what the free ones should be.
std::vector<double> plain_feedback(std::vector<double> w, const torch::Tensor& h,
                                   const std::vector<std::int64_t>& columns,
                                   const PartialMatrix& scales, std::int64_t row) {
  const std::int64_t n = h.size(0);
  torch::Tensor damped = h.to(torch::kFloat64).clone();
  damped.diagonal().add_(0.02 * damped.diagonal().mean() + 1e-12);
  std::vector<std::int64_t> free(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) free[static_cast<std::size_t>(i)] = i;
  const format::Grid& grid = *scales.grid;
  const auto nearest = [&](double q) {
    int best = grid.level(grid.code.lowest);
    for (int code = grid.code.lowest; code <= grid.code.highest; ++code) {
      if (std::abs(grid.level(code) - q) < std::abs(best - q)) best = grid.level(code);
    }
    return static_cast<double>(best);
  };
  for (const std::int64_t c : columns) {
    const double step = scales.d[row][c / grid.super_block].item<double>() *
                        scales.scale[row][c / grid.block].item<double>(),
                 offset = scales.dmin[row][c / grid.super_block].item<double>() *
                          scales.min[row][c / grid.block].item<double>();
    double& x = w[static_cast<std::size_t>(c)];
    const double q = nearest(step != 0 ? (x + offset) / step : 0);
    const double change = q * step - offset - x;
    x += change;
    free.erase(std::find(free.begin(), free.end(), c));
    if (free.empty()) break;
    // min over y of the cost of (change at c, y at the free ones): y = −H_ff⁻¹ h_fc change
    const torch::Tensor at = torch::tensor(free);
    const torch::Tensor answer =
        torch::linalg_solve(damped.index_select(0, at).index_select(1, at),
                            damped.index_select(0, at).select(1, c) * -change, true);
    for (std::size_t i = 0; i < free.size(); ++i)
      w[static_cast<std::size_t>(free[i])] += answer[static_cast<std::int64_t>(i)].item<double>();
  }
  return w;
}

TEST(FixColumns, ErrorsAreAnsweredByAllFreeColumnsAsInThePlainVersion) {
  const Case of = random_case(3, 256, 5);
  const auto order = column_order(of.h);
  for (const format::Grid* grid : format::all_grids()) {
    for (const std::size_t share : {std::size_t{12}, std::size_t{80}}) {
      SCOPED_TRACE(format::name_of(*grid));
      PartialMatrix matrix(*grid, of.weight.clone());
      fix_columns({&matrix}, part(order, 0, share), {of.h, {}, {}});
      for (std::int64_t row = 0; row < 3; ++row) {
        std::vector<double> w(256);
        for (std::int64_t c = 0; c < 256; ++c)
          w[static_cast<std::size_t>(c)] = of.weight[row][c].item<double>();
        w = plain_feedback(std::move(w), of.h, part(order, 0, share), matrix, row);
        double largest = 0;
        for (std::int64_t c = 0; c < 256; ++c)
          largest = std::max(largest, std::abs(w[static_cast<std::size_t>(c)] -
                                               matrix.weight[row][c].item<double>()));
        EXPECT_LT(largest, 1e-4) << "row " << row << ", " << share << " columns";
      }
    }
  }
}

TEST(FixColumns, LaterSharesNeverMoveWhatStands) {
  const Case of = random_case(6, 512, 6);
  PartialMatrix matrix(kGrid, of.weight.clone());
  const auto order = column_order(of.h);
  fix_columns({&matrix}, part(order, 0, 200), {of.h, {}, {}});
  const torch::Tensor before = matrix.weight.clone(), stood = matrix.fixed.clone();
  matrix.weight.add_(torch::randn_like(matrix.weight) * 0.01 * (1 - stood));  // training
  fix_columns({&matrix}, part(order, 200, 512), {of.h, {}, {}});
  EXPECT_TRUE(torch::equal(torch::where(stood > 0, matrix.weight, before), before));
}

TEST(FixColumns, MatricesTogetherAreMatricesAlone) {
  const Case of = random_case(10, 256, 7);
  const auto order = column_order(of.h);
  PartialMatrix whole(kGrid, of.weight.clone()), top(kGrid, of.weight.slice(0, 0, 4).clone()),
      rest(kGrid, of.weight.slice(0, 4).clone());
  fix_columns({&whole}, part(order, 0, 64), {of.h, {}, {}});
  fix_columns({&top, &rest}, part(order, 0, 64), {of.h, {}, {}});
  EXPECT_TRUE(torch::equal(torch::cat({top.weight, rest.weight}), whole.weight));
}

TEST(FixColumns, RowsOfATiedEmbeddingAnswerToTheirOwnMoment) {
  const Case of = random_case(32, 256, 8);
  const torch::Tensor c = random_case(1, 256, 9).h, weight = torch::rand({32}).mul(8).sub(4).exp2();
  const auto own = [&](const torch::Tensor& w) {
    const torch::Tensor e = (w - of.weight).to(torch::kFloat64);
    return cost(w - of.weight, of.h) +
           ((e.mm(c.to(torch::kFloat64)) * e).sum(1) * weight).sum().item<double>();
  };
  std::vector<std::int64_t> columns(256);
  for (std::int64_t i = 0; i < 256; ++i) columns[static_cast<std::size_t>(i)] = i;
  PartialMatrix with(kGrid, of.weight.clone()), without(kGrid, of.weight.clone());
  fix_columns({&with}, columns, {of.h, weight, c});
  fix_columns({&without}, columns, {of.h, {}, {}});
  EXPECT_LT(own(with.weight), 0.95 * own(without.weight));
}

TEST(FixColumns, DegenerateRowsAreFixedToo) {
  Case of = random_case(4, 256, 10);
  of.weight[0].zero_();
  of.weight[1].fill_(0.5);
  of.weight[2].slice(0, 0, 32).zero_();
  of.h[3].zero_();
  of.h.select(1, 3).zero_();
  const auto order = column_order(of.h);
  for (const format::Grid* grid : format::all_grids()) {
    SCOPED_TRACE(format::name_of(*grid));
    PartialMatrix matrix(*grid, of.weight.clone());
    fix_columns({&matrix}, part(order, 0, 128), {of.h, {}, {}});
    fix_columns({&matrix}, part(order, 128, 256), {of.h, {}, {}});
    EXPECT_TRUE(matrix.weight.isfinite().all().item<bool>());
    EXPECT_LT((matrix.weight - of.weight)[1].abs().max().item<double>(), 0.02);
  }
}

}  // namespace
}  // namespace spectralquant::quantize
