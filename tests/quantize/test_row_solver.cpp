#include <gtest/gtest.h>

#include <random>

#include "quantize/solver_problems.h"
#include "spectralquant/format/round.h"
#include "spectralquant/quantize/inverse_factor.h"
#include "spectralquant/quantize/quadratic.h"
#include "spectralquant/quantize/row_buffer.h"
#include "spectralquant/quantize/row_solver.h"

namespace spectralquant::quantize {
namespace {

constexpr SimdLevel kLevels[] = {SimdLevel::kBaseline, SimdLevel::kAvx2, SimdLevel::kAvx512};

std::vector<float> to_vector(const torch::Tensor& tensor) {
  const torch::Tensor flat = tensor.contiguous().to(torch::kFloat);
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

/// Start and sweeps of a few rows with the kernels of one level; everything they write.
template <class F>
std::vector<float> run(const format::Grid& grid, SimdLevel level, bool tied, bool diagonal) {
  constexpr int kBlock = F::kBlock, kSuper = F::kSuper;
  const RowKernels<F>& kernels = *row_kernels<F>(level);
  const std::int64_t rows = 6, cols = 512;
  Problem problem = test_problem(tied ? Kind::kTied : Kind::kOneSided, rows, cols, 41);
  problem.grid = &grid;
  const std::vector<float> diagonal_h = to_vector(problem.h.diagonal()),
                           h = tiled(to_vector(problem.h).data(), cols);
  const std::vector<float> c =
      tied ? tiled(to_vector(problem.c).data(), cols) : std::vector<float>{};
  format::GridMatrix matrix = format::round_like_llama(
      *problem.grid, problem.target.data_ptr<float>(), rows, cols, diagonal_h.data(), 1);
  const std::vector<float> u = inverse_factor(h.data(), cols, 1);
  std::vector<BlockFactors<F>> start(cols / kBlock);
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    if (diagonal) {
      take_block(diagonal_h.data(), true, cols, b * kBlock, start[b]);
    } else {
      take_block(u.data(), false, cols, b * kBlock, start[b]);
    }
  }
  std::vector<RowBuffer<F>> buffers(rows, RowBuffer<F>(cols, true));
  std::vector<RowWork<F>> work(rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    buffers[r].load(matrix, r);
    std::copy_n(problem.target.data_ptr<float>() + r * cols, cols, buffers[r].m());
    work[r] = buffers[r].work();
    work[r].blocks = start.data();
  }
  const RowSettings settings;
  const Numbers numbers = numbers_of(grid);
  kernels.start(work.data(), rows, cols, diagonal ? nullptr : u.data(), numbers, settings);
  for (std::int64_t r = 0; r < rows; ++r) {
    decode_row(work[r], cols);
    work[r].blocks = buffers[r].own_blocks();
    work[r].weight = tied ? .3f * static_cast<float>(r) : 0.f;
    for (std::int64_t b = 0; b < cols / kBlock; ++b) {
      if (diagonal) {
        factor_diagonal_block(diagonal_h.data() + b * kBlock, buffers[r].own_blocks()[b]);
      } else {
        factor_block(h.data(), tied ? c.data() : nullptr, work[r].weight, cols, b * kBlock,
                     buffers[r].own_blocks()[b]);
      }
    }
    std::vector<float> e(cols), product(cols);
    for (std::int64_t i = 0; i < cols; ++i)
      e[i] = work[r].value[i] - problem.target.data_ptr<float>()[r * cols + i];
    products(level)->multiply(e.data(), cols, 1, cols, h.data(), kTile, 0, kTile, product.data(),
                              cols);
    std::copy(product.begin(), product.end(), work[r].m);
  }
  kernels.improve(work.data(), rows, cols, diagonal ? nullptr : h.data(), tied ? c.data() : nullptr,
                  numbers, settings);
  std::vector<float> all;
  for (std::int64_t r = 0; r < rows; ++r) {
    all.push_back(static_cast<float>(work[r].gain));
    all.insert(all.end(), work[r].m, work[r].m + cols);
    all.insert(all.end(), work[r].value, work[r].value + cols);
    all.insert(all.end(), work[r].code, work[r].code + cols);
    all.insert(all.end(), work[r].scale, work[r].scale + cols / kBlock);
    all.insert(all.end(), work[r].d, work[r].d + cols / kSuper);
  }
  return all;
}

TEST(RowSolver, EverySimdLevelGivesTheSameBits) {
  for (const format::Grid* grid : format::all_grids()) {
    with_shape(*grid, [grid](auto of) {
      using F = decltype(of);
      for (const auto& [tied, diagonal] : {std::pair{false, false}, {true, false}, {false, true}}) {
        const std::vector<float> expected = run<F>(*grid, SimdLevel::kBaseline, tied, diagonal);
        for (const SimdLevel level : kLevels) {
          if (row_kernels<F>(level)) {
            EXPECT_TRUE(expected == run<F>(*grid, level, tied, diagonal))
                << format::name_of(*grid) << ", level " << static_cast<int>(level);
          }
        }
      }
    });
  }
}

TEST(RowSolver, ProductsOfEveryLevelAreTheSameAndRight) {
  std::mt19937 random(43);
  std::normal_distribution<float> normal;
  const std::int64_t depth = 300, width = 64;
  for (const int rows : {1, 2, 5, 8}) {
    std::vector<float> a(rows * depth), x(depth * width);
    for (float& v : a) v = normal(random);
    for (float& v : x) v = normal(random);
    const std::vector<double> exact_a(a.begin(), a.end()), exact_x(x.begin(), x.end());
    std::vector<double> expected(rows * width);
    for (int r = 0; r < rows; ++r) {
      for (std::int64_t k = 0; k < depth; ++k) {
        for (std::int64_t j = 0; j < width; ++j)
          expected[r * width + j] += exact_a[r * depth + k] * exact_x[k * width + j];
      }
    }
    std::vector<float> first;
    for (const SimdLevel level : kLevels) {
      const Products* kernels = products(level);
      if (!kernels) continue;
      std::vector<float> out(rows * width);
      std::vector<double> exact(rows * width), wide(rows * width);
      kernels->multiply(a.data(), depth, rows, depth, x.data(), width, 0, width, out.data(), width);
      kernels->multiply_exact(exact_a.data(), depth, rows, depth, x.data(), width, 0, width,
                              exact.data(), width);
      kernels->multiply_double(exact_a.data(), depth, rows, depth, exact_x.data(), width, 0, width,
                               wide.data(), width);
      EXPECT_EQ(exact, expected);
      EXPECT_EQ(wide, expected);
      for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected[i], 1e-3);
      if (first.empty()) first = out;
      EXPECT_EQ(first, out);
    }
  }
}

TEST(InverseFactor, SquaresToTheInverse) {
  torch::manual_seed(47);
  const std::int64_t n = 320;
  const torch::Tensor a = test_moment(n, 3 * n);
  const std::vector<float> u = inverse_factor(tiled(to_vector(a).data(), n).data(), n, 1);
  torch::Tensor dense = torch::zeros({n, n}, torch::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) dense[i][j] = u[tiled_index(i, j, n)];
  }
  EXPECT_EQ(dense.tril(-1).abs().max().item<double>(), 0);
  const torch::Tensor identity = dense.t().matmul(dense).matmul(a.to(torch::kDouble));
  EXPECT_LT((identity - torch::eye(n, torch::kDouble)).abs().max().item<double>(), 1e-4);
  EXPECT_EQ(u, inverse_factor(tiled(to_vector(a).data(), n).data(), n, 3));
}

TEST(InverseFactor, GivesNothingForWhatIsNotPositiveDefinite) {
  const torch::Tensor ones = torch::ones({128, 128});
  EXPECT_TRUE(inverse_factor(tiled(to_vector(ones).data(), 128).data(), 128, 1).empty());
}

}  // namespace
}  // namespace spectralquant::quantize
