// Spectra whose answer is known: diagonal, flat, of low rank; the estimate against the exact way.
#include <cmath>

#include "calibrate/calibrate_fixture.h"
#include "spectralquant/spectra/report.h"
#include "spectralquant/spectra/spectrum.h"

namespace spectralquant::spectra {
namespace {

using calibrate::refusal;
using ::testing::HasSubstr;

/// Q diag(values) Qᵀ with a random rotation Q.
torch::Tensor rotated(const std::vector<double>& values) {
  const auto n = static_cast<std::int64_t>(values.size());
  const torch::Tensor q = std::get<0>(torch::linalg_qr(torch::randn({n, n}, torch::kFloat64)));
  const torch::Tensor m = q.mm(torch::diag(torch::tensor(values, torch::kFloat64))).mm(q.t());
  return ((m + m.t()) / 2).to(torch::kFloat32);
}

std::vector<double> falling(std::size_t n, double factor) {
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = std::pow(factor, static_cast<double>(i));
  return values;
}

class SpectrumTest : public ::testing::Test {
 protected:
  SpectrumTest() { torch::manual_seed(11); }
};

TEST_F(SpectrumTest, OfEqualEigenvaluesHasFullRank) {
  const Spectrum s = decompose(torch::eye(40) * 3);
  EXPECT_EQ(s.size, 40);
  EXPECT_NEAR(s.trace, 120, 1e-9);
  EXPECT_NEAR(s.effective_rank, 40, 1e-9);
  EXPECT_NEAR(s.participation_ratio, 40, 1e-9);
  EXPECT_NEAR(s.share_of_top(2), 0.05, 1e-12);
  EXPECT_FALSE(s.estimated);
}

TEST_F(SpectrumTest, OfLowRankHasThatRank) {
  std::vector<double> values(64, 0.0);
  values[5] = values[17] = values[40] = 2;
  const Spectrum s = decompose(rotated(values));
  EXPECT_NEAR(s.effective_rank, 3, 1e-3);
  EXPECT_NEAR(s.participation_ratio, 3, 1e-3);
  EXPECT_NEAR(s.share_of_top(3), 1, 1e-5);
  for (const double value : s.eigenvalues) EXPECT_GE(value, 0);
}

TEST_F(SpectrumTest, FindsEigenvaluesAndDirectionsOfARotation) {
  const std::vector<double> values = falling(50, 0.8);
  const torch::Tensor m = rotated(values);
  const Spectrum s = decompose(m);
  ASSERT_EQ(s.eigenvalues.size(), 50u);
  for (std::size_t i = 0; i < 50; ++i) EXPECT_NEAR(s.eigenvalues[i], values[i], 1e-6);
  ASSERT_EQ(s.n_directions(), 10);  // 20 %
  const torch::Tensor image = m.to(torch::kFloat64).mm(s.directions),
                      expected =
                          s.directions * torch::tensor(values, torch::kFloat64).slice(0, 0, 10);
  EXPECT_LT(calibrate::difference(image, expected), 1e-5);
  EXPECT_LT(calibrate::difference(s.directions.t().mm(s.directions), torch::eye(10)), 1e-9);
}

TEST_F(SpectrumTest, OfADiagonalIsThatOfItsMatrix) {
  const torch::Tensor diagonal = torch::rand({60});
  const Spectrum a = decompose(diagonal), b = decompose(torch::diag(diagonal));
  EXPECT_NEAR(a.trace, b.trace, 1e-6);
  EXPECT_NEAR(a.effective_rank, b.effective_rank, 1e-6);
  const torch::Tensor x = torch::randn({7, 60});
  EXPECT_LT(calibrate::difference(a.coordinates(x).abs(), b.coordinates(x).abs()), 1e-5);
}

TEST_F(SpectrumTest, EstimateAgreesWithTheExactWay) {
  const torch::Tensor m = rotated(falling(300, 0.96));
  const Spectrum exact = decompose(m), estimate = decompose_by_subspace(m);
  EXPECT_TRUE(estimate.estimated);
  ASSERT_EQ(estimate.eigenvalues.size(), 60u);
  EXPECT_NEAR(estimate.trace, exact.trace, 1e-4);
  EXPECT_NEAR(estimate.participation_ratio, exact.participation_ratio, 1e-2);
  for (std::size_t i = 0; i < 60; ++i)
    EXPECT_NEAR(estimate.eigenvalues[i], exact.eigenvalues[i], 1e-3 * exact.eigenvalues[i] + 1e-6)
        << i;
  // unknown eigenvalues are taken as equal
  EXPECT_GE(estimate.effective_rank, exact.effective_rank);
  EXPECT_LT(estimate.effective_rank, 1.5 * exact.effective_rank);
  const torch::Tensor x = torch::randn({5, 300});
  for (const std::int64_t k : {3, 15, 60}) {
    const double a = exact.coordinates(x).slice(1, 0, k).square().sum().item<double>(),
                 b = estimate.coordinates(x).slice(1, 0, k).square().sum().item<double>();
    EXPECT_NEAR(a, b, 0.01 * a) << k;
  }
}

TEST_F(SpectrumTest, LargeMomentsAreEstimated) {
  const std::int64_t n = kLargestExact + 52;
  torch::Tensor m = torch::eye(n) * 0.001f;
  for (std::int64_t i = 0; i < 30; ++i) m[i][i] = 100 - i;
  const Spectrum s = decompose(m);
  EXPECT_TRUE(s.estimated);
  EXPECT_EQ(s.n_directions(), top_count(0.2, n));
  EXPECT_NEAR(s.eigenvalues[0], 100, 1e-2);
  EXPECT_NEAR(s.eigenvalues[29], 71, 1e-2);
  EXPECT_NEAR(s.trace, 2565 + 0.001 * (n - 30), 0.1);
}

TEST_F(SpectrumTest, OfZeroIsZero) {
  const Spectrum s = decompose(torch::zeros({8, 8}));
  EXPECT_EQ(s.effective_rank, 0);
  EXPECT_EQ(s.participation_ratio, 0);
  EXPECT_EQ(s.share_of_top(1), 0);
  EXPECT_EQ(sparkline(s, 4), "    ");
}

TEST_F(SpectrumTest, ScaleChangesTheTraceAlone) {
  const torch::Tensor m = rotated(falling(32, 0.7));
  const Spectrum a = decompose(m), b = decompose(m * 1e-6);
  EXPECT_NEAR(a.effective_rank, b.effective_rank, 1e-4);
  EXPECT_NEAR(a.participation_ratio, b.participation_ratio, 1e-4);
  EXPECT_NEAR(b.trace / a.trace, 1e-6, 1e-11);
}

TEST_F(SpectrumTest, CurveRunsFromFirstToLast) {
  const Spectrum s = decompose(rotated(falling(100, 0.9)));
  const auto curve = s.curve(12);
  EXPECT_EQ(curve.front().first, 1);
  EXPECT_EQ(curve.back().first, 100);
  for (std::size_t i = 1; i < curve.size(); ++i) {
    EXPECT_GT(curve[i].first, curve[i - 1].first);
    EXPECT_LE(curve[i].second, curve[i - 1].second);
  }
  EXPECT_EQ(decompose(torch::eye(1)).curve(12).size(), 1u);
}

TEST_F(SpectrumTest, SparklineFallsWithTheDecades) {
  EXPECT_EQ(sparkline(decompose(torch::eye(16)), 3), "███");
  // ranks 1, 2, 3: no, half, six decades below
  EXPECT_EQ(sparkline(decompose(torch::tensor({1.0f, 1e-3f, 1e-6f})), 3), "█▄ ");
}

TEST_F(SpectrumTest, TopCountsRoundAndAreNeverZero) {
  EXPECT_EQ(top_count(0.01, 4), 1);
  EXPECT_EQ(top_count(0.01, 256), 3);
  EXPECT_EQ(top_count(0.05, 256), 13);
  EXPECT_EQ(top_count(0.20, 256), 51);
}

TEST_F(SpectrumTest, WhatIsNoMomentIsRefused) {
  EXPECT_THAT(refusal([] {
                decompose(torch::rand({3, 4}));
              }),
              HasSubstr("neither square nor a diagonal"));
  EXPECT_THAT(refusal([] { decompose(torch::Tensor()); }),
              HasSubstr("neither square nor a diagonal"));
  torch::Tensor m = torch::eye(4);
  m[2][2] = std::nanf("");
  EXPECT_THAT(refusal([&] { decompose(m); }), HasSubstr("NaN"));
}

}  // namespace
}  // namespace spectralquant::spectra
