#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>

#include "spectralquant/evaluate/divergence.h"

namespace spectralquant::evaluate {
namespace {

/// The definitions in double. hidden: [n, D], head: [V, D].
Divergence by_definition(const Predictions& p, const Predictions& q, const torch::Tensor& targets) {
  const auto log = [](const Predictions& side) {
    return side.hidden.matmul(side.head.t()).to(torch::kFloat64).log_softmax(-1);
  };
  const auto log_p = log(p), log_q = log(q), wanted = targets.unsqueeze(-1);
  const auto true_p = log_p.gather(-1, wanted).squeeze(-1),
             true_q = log_q.gather(-1, wanted).squeeze(-1);
  return {-true_q, (log_p.exp() * (log_p - log_q)).sum(-1), true_q.exp() - true_p.exp(),
          log_p.argmax(-1).eq(log_q.argmax(-1))};
}

double farthest(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>();
}

void expect_close(const Divergence& a, const Divergence& b, double tolerance) {
  EXPECT_LT(farthest(a.loss, b.loss), tolerance);
  EXPECT_LT(farthest(a.kld, b.kld), tolerance);
  EXPECT_LT(farthest(a.delta_p, b.delta_p), tolerance);
  EXPECT_TRUE(a.same_top.to(torch::kBool).equal(b.same_top.to(torch::kBool)));
}

struct Problem {
  Predictions p, q;
  torch::Tensor targets;
};

/// Logits of a spread of about `scale`; the candidate is off by a share of `noise`.
Problem make(std::int64_t n, std::int64_t vocab_size, double scale, double noise,
             std::uint64_t seed) {
  torch::manual_seed(static_cast<std::int64_t>(seed));
  constexpr std::int64_t kHidden = 16;
  Problem out;
  out.p = {torch::randn({n, kHidden}) * (scale / 4), torch::randn({vocab_size, kHidden})};
  out.q = {out.p.hidden + noise * torch::randn({n, kHidden}),
           out.p.head + noise * torch::randn({vocab_size, kHidden})};
  out.targets = torch::randint(vocab_size, {n}, torch::kInt64);
  return out;
}

TEST(DivergenceTest, BothWaysAreTheDefinition) {
  // More rows and more columns than a tile holds, and remainders of both.
  for (const auto& [n, vocab_size] :
       {std::pair{300, 2500}, {1, 1}, {3, 17}, {256, 1024}, {2, 5000}}) {
    const Problem problem = make(n, vocab_size, 4, 0.05, 1);
    const auto truth = by_definition(problem.p, problem.q, problem.targets);
    expect_close(diverge_plainly(problem.p, &problem.q, problem.targets), truth, 1e-5);
    expect_close(diverge_fused(problem.p, &problem.q, problem.targets), truth, 1e-5);
  }
}

TEST(DivergenceTest, FusedEqualsPlainOnAnything) {
  EXPECT_TRUE(rc::check([] {
    const auto n = *rc::gen::inRange(1, 40), vocab_size = *rc::gen::inRange(1, 3000),
               scale = *rc::gen::inRange(0, 40);
    const Problem problem = make(n, vocab_size, scale, 0.02 * *rc::gen::inRange(0, 50),
                                 *rc::gen::arbitrary<std::uint32_t>());
    const auto plain = diverge_plainly(problem.p, &problem.q, problem.targets),
               fused = diverge_fused(problem.p, &problem.q, problem.targets);
    // float32 logits up to several hundred: their own rounding, not that of the sums.
    const double tolerance = 1e-5 * (1 + scale * scale);
    RC_ASSERT(farthest(fused.loss, plain.loss) < tolerance);
    RC_ASSERT(farthest(fused.kld, plain.kld) < tolerance);
    RC_ASSERT(farthest(fused.delta_p, plain.delta_p) < tolerance);
  }));
}

TEST(DivergenceTest, TheReferenceItselfHasNone) {
  const Problem problem = make(50, 1500, 8, 0, 2);
  const auto alone = diverge_fused(problem.p, nullptr, problem.targets),
             beside = diverge_fused(problem.p, &problem.p, problem.targets);
  EXPECT_TRUE(alone.loss.equal(beside.loss));
  for (const auto& d : {alone, beside}) {
    EXPECT_EQ(d.kld.abs().max().item<float>(), 0);
    EXPECT_EQ(d.delta_p.abs().max().item<float>(), 0);
    EXPECT_TRUE(d.same_top.all().item<bool>());
  }
  expect_close(diverge_plainly(problem.p, nullptr, problem.targets), alone, 1e-5);
}

TEST(DivergenceTest, SmallDivergencesKeepTheirDigits) {
  const Problem problem = make(64, 4096, 6, 1e-3, 3);
  const auto truth = by_definition(problem.p, problem.q, problem.targets);
  const auto fused = diverge_fused(problem.p, &problem.q, problem.targets);
  const double mean = truth.kld.mean().item<double>();
  EXPECT_LT(mean, 1e-4);
  EXPECT_NEAR(fused.kld.to(torch::kFloat64).mean().item<double>(), mean, 0.01 * mean);
}

TEST(DivergenceTest, AHigherLogitInALaterTileRescalesTheSums) {
  Problem problem = make(5, 4000, 1, 0.1, 4);
  for (const std::int64_t token : {10, 1500, 3999})
    problem.p.head[token] *= token, problem.q.head[token] *= token;
  const auto truth = by_definition(problem.p, problem.q, problem.targets);
  EXPECT_LT(((diverge_fused(problem.p, &problem.q, problem.targets).loss - truth.loss) /
             truth.loss.abs().clamp_min(1))
                .abs()
                .max()
                .item<double>(),
            1e-5);
}

TEST(DivergenceTest, NotANumberIsNotHidden) {
  Problem problem = make(2, 100, 1, 0.1, 5);
  problem.q.head[50][0] = std::nan("");
  const auto d = diverge_fused(problem.p, &problem.q, problem.targets);
  EXPECT_TRUE(d.loss.isnan().all().item<bool>());
  EXPECT_TRUE(d.kld.isnan().all().item<bool>());
}

}  // namespace
}  // namespace spectralquant::evaluate
