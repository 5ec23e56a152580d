// Intervals, percentiles and what is made of positions.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "spectralquant/evaluate/score.h"
#include "spectralquant/evaluate/statistics.h"

namespace spectralquant::evaluate {
namespace {

double first_mean(const std::vector<double>& means) { return means[0]; }

/// Units of n_tokens tokens each, whose values differ by unit and by token.
UnitSums normal_units(std::mt19937_64& random, std::size_t n_units, double mean, double deviation) {
  std::normal_distribution<double> normal(mean, deviation);
  UnitSums units;
  units.sums.emplace_back();
  for (std::size_t u = 0; u < n_units; ++u) {
    units.n_tokens.push_back(10);
    units.sums[0].push_back(10 * normal(random));
  }
  return units;
}

Positions positions(const std::vector<float>& loss, const std::vector<std::int32_t>& unit) {
  Positions out;
  out.loss = loss;
  out.kld.assign(loss.size(), 0);
  out.delta_p.assign(loss.size(), 0);
  out.same_top.assign(loss.size(), 1);
  out.unit = unit;
  return out;
}

TEST(BootstrapTest, MeanIsThatOfTokensNotOfDocuments) {
  UnitSums units;
  units.sums = {{10, 0}};
  units.n_tokens = {1, 9};
  const Interval i = bootstrap(units, first_mean, 1000, 1);
  EXPECT_DOUBLE_EQ(i.mean, 1.0);
  EXPECT_DOUBLE_EQ(i.low, 0.0);    // both draws are the second document
  EXPECT_DOUBLE_EQ(i.high, 10.0);  // both are the first
}

TEST(BootstrapTest, UnitSumsAddWhatBelongsTogether) {
  UnitSums units;
  units.add(std::vector<float>{1, 2, 4, 8}, {0, 2, 0, 2});
  EXPECT_EQ(units.sums, (std::vector<std::vector<double>>{{5, 0, 10}}));
}

TEST(BootstrapTest, HoldsTheTruthAboutNineteenTimesInTwenty) {
  std::mt19937_64 random(20);
  constexpr int kTrials = 400;
  int held = 0;
  double width = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const Interval i = bootstrap(normal_units(random, 60, 2.0, 0.5), first_mean, 400,
                                 static_cast<std::uint64_t>(trial));
    held += i.low <= 2.0 && 2.0 <= i.high;
    width += (i.high - i.low) / kTrials;
  }
  EXPECT_GT(held, 0.91 * kTrials);  // three standard deviations of a share of .95 in 400 are .033
  EXPECT_LT(held, 0.985 * kTrials);
  EXPECT_NEAR(width, 2 * 1.96 * 0.5 / std::sqrt(60.0), 0.015);
}

TEST(BootstrapTest, CandidatesAreResampledAlike) {
  std::mt19937_64 random(3);
  const UnitSums one = normal_units(random, 20, 1.0, 1.0),
                 other = normal_units(random, 20, 5.0, 1.0);
  UnitSums shifted = one;
  for (double& sum : shifted.sums[0]) sum += 10 * 0.25;
  std::vector<std::vector<double>> seen;
  for (const UnitSums& units : {one, shifted, other}) {
    seen.emplace_back();
    bootstrap(
        units, [&](const std::vector<double>& means) { return seen.back().emplace_back(means[0]); },
        50, 9);
  }
  ASSERT_EQ(seen[0].size(), 51u);  // the whole, then 50 resamples
  for (std::size_t i = 0; i < seen[0].size(); ++i)
    EXPECT_NEAR(seen[1][i] - seen[0][i], 0.25, 1e-12);
}

TEST(BootstrapTest, IsAFunctionOfItsSeed) {
  std::mt19937_64 random(4);
  const UnitSums units = normal_units(random, 30, 1.0, 1.0);
  const Interval a = bootstrap(units, first_mean, 200, 1),
                 again = bootstrap(units, first_mean, 200, 1),
                 b = bootstrap(units, first_mean, 200, 2);
  EXPECT_EQ(a.low, again.low);
  EXPECT_EQ(a.high, again.high);
  EXPECT_NE(a.low, b.low);
  EXPECT_EQ(a.mean, b.mean);
}

TEST(BootstrapTest, WithoutAnythingToResampleTheIntervalIsItsMean) {
  UnitSums one;
  one.sums = {{6}};
  one.n_tokens = {4};
  std::mt19937_64 random(5);
  for (const Interval& i : {bootstrap(one, first_mean, 100, 1),
                            bootstrap(normal_units(random, 9, 1, 1), first_mean, 0, 1)}) {
    EXPECT_EQ(i.low, i.mean);
    EXPECT_EQ(i.high, i.mean);
  }
  const Interval empty = bootstrap({}, first_mean, 100, 1);
  EXPECT_EQ(empty.mean, 0);
}

TEST(PercentileTest, IsNumPys) {
  const std::vector<float> values = {3.5f, -1.25f, 0.0f, 8.0f, 2.75f, 2.75f, 100.0f, 0.5f};
  const std::vector<std::pair<double, double>> numpy = {
      // np.quantile of these, NumPy 1.24.2
      {0, -1.25}, {0.1, -0.375}, {0.25, 0.375}, {0.5, 2.75}, {0.9, 35.6}, {0.99, 93.56}, {1, 100}};
  for (const auto& [share, value] : numpy)
    EXPECT_NEAR(percentile(values, share), value, 1e-9) << share;
  EXPECT_EQ(percentile({}, 0.5), 0);
  EXPECT_EQ(percentile({7}, 0.9), 7);
}

TEST(SummarizeTest, MakesEveryFigureOfPositions) {
  Positions p = positions({1, 2, 3, 6}, {0, 0, 1, 1});
  p.kld = {0.0f, 0.1f, 0.2f, 0.7f};
  p.delta_p = {0.3f, -0.3f, 0.1f, -0.1f};
  p.same_top = {1, 1, 0, 1};
  const Score s = summarize(p, nullptr, nullptr);
  EXPECT_EQ(s.n_tokens, 4);
  EXPECT_DOUBLE_EQ(s.loss.mean, 3.0);
  EXPECT_DOUBLE_EQ(s.loss.low, 1.5);
  EXPECT_DOUBLE_EQ(s.loss.high, 4.5);
  EXPECT_NEAR(s.kld.mean, 0.25, 1e-7);
  EXPECT_NEAR(s.kld_p90, 0.55, 1e-6);
  EXPECT_NEAR(s.kld_p99, 0.685, 1e-6);
  EXPECT_NEAR(s.kld_max, 0.7, 1e-6);
  EXPECT_DOUBLE_EQ(s.top1_agreement.mean, 0.75);
  EXPECT_NEAR(s.rms_delta_p, std::sqrt(0.05), 1e-7);
  EXPECT_FALSE(s.has_gap_recovery);
}

TEST(SummarizeTest, GapRecoveryIsTheShareOfTheLossWonBack) {
  const std::vector<std::int32_t> unit = {0, 0, 1, 2};
  const Positions reference = positions({1, 2, 3, 4}, unit),
                  baseline = positions({2, 3, 4, 5}, unit);
  const Score half = summarize(positions({1.5, 2.5, 3.5, 4.5}, unit), &reference, &baseline);
  ASSERT_TRUE(half.has_gap_recovery);
  EXPECT_DOUBLE_EQ(half.gap_recovery.mean, 0.5);
  EXPECT_DOUBLE_EQ(half.gap_recovery.low, 0.5);  // numerator and denominator are resampled together
  EXPECT_DOUBLE_EQ(half.gap_recovery.high, 0.5);
  EXPECT_DOUBLE_EQ(summarize(reference, &reference, &baseline).gap_recovery.mean, 1.0);
  EXPECT_DOUBLE_EQ(summarize(baseline, &reference, &baseline).gap_recovery.mean, 0.0);
  EXPECT_LT(summarize(positions({9, 9, 9, 9}, unit), &reference, &baseline).gap_recovery.mean, 0.0);
}

TEST(SummarizeTest, GapRecoveryOfNoGapIsNoNumber) {
  const Positions same = positions({1, 2, 3}, {0, 1, 2});
  const Score s = summarize(same, &same, &same);
  EXPECT_TRUE(s.has_gap_recovery);
  EXPECT_TRUE(std::isnan(s.gap_recovery.mean));
}

TEST(SummarizeTest, OneBootstrapForAllDocumentsEvenEmptyOnes) {
  // documents 1 to 3 have nothing to score
  const Score s = summarize(positions({1, 3}, {0, 4}), nullptr, nullptr);
  EXPECT_DOUBLE_EQ(s.loss.mean, 2.0);
  EXPECT_GE(s.loss.low, 1.0);
  EXPECT_LE(s.loss.high, 3.0);
}

}  // namespace
}  // namespace spectralquant::evaluate
