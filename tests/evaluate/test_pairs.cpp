// Two candidates on one suite: differences, verdicts, and whether the text was enough.
#include <gtest/gtest.h>

#include <random>

#include "spectralquant/evaluate/pairs.h"

namespace spectralquant::evaluate {
namespace {

/// Documents of ten tokens; losses and divergences scatter far more between documents than between
/// candidates.
struct Candidates {
  Positions a, b;
};
Candidates make(std::size_t n_documents, double shift, double noise, std::uint64_t seed = 3) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  Candidates out;
  for (std::size_t d = 0; d < n_documents; ++d) {
    const double level = 2 + normal(random);
    for (int t = 0; t < 10; ++t) {
      for (auto* p : {&out.a, &out.b}) {
        const double value = level + (p == &out.a ? shift : 0) + noise * normal(random);
        p->loss.push_back(static_cast<float>(value));
        p->kld.push_back(static_cast<float>(std::abs(value) / 10));
        p->delta_p.push_back(0);
        p->same_top.push_back(1);
        p->unit.push_back(static_cast<std::int32_t>(d));
      }
    }
  }
  return out;
}

TEST(PairTest, AClearDifferenceHasAVerdictThoughIntervalsOverlap) {
  const auto [a, b] = make(60, -0.1, 0.05);
  const auto lower = compare_pair(a, b, {}), higher = compare_pair(b, a, {});
  EXPECT_NEAR(lower.loss.mean, -0.1, 0.02);
  EXPECT_EQ(lower.loss_verdict, Verdict::kBetter);
  EXPECT_EQ(lower.kld_verdict, Verdict::kBetter);
  EXPECT_EQ(higher.loss_verdict, Verdict::kWorse);
  EXPECT_EQ(higher.kld_verdict, Verdict::kWorse);
  EXPECT_GT(summarize(a, nullptr, nullptr).loss.high, summarize(b, nullptr, nullptr).loss.low);
}

TEST(PairTest, AFileAndItselfAreNotDistinguishableAndThatIsEnough) {
  const auto [a, b] = make(40, 0, 0.05);
  const auto same = compare_pair(a, a, {});
  EXPECT_EQ(same.loss.mean, 0);
  EXPECT_EQ(same.kld_verdict, Verdict::kNotDistinguishable);
  EXPECT_TRUE(same.enough);
  EXPECT_EQ(same.tokens_needed, 400);
}

TEST(PairTest, TooFewTokensAreSaidAndTheNumberNeededIsAboutEnough) {
  const auto few = make(50, 0, 0.5);
  const auto first = compare_pair(few.a, few.b, {});
  EXPECT_EQ(first.kld_verdict, Verdict::kNotDistinguishable);
  EXPECT_FALSE(first.enough);
  EXPECT_GT(first.resolution, kResolution);
  ASSERT_GT(first.tokens_needed, 500);
  const auto many = make(static_cast<std::size_t>(first.tokens_needed / 10), 0, 0.5, 4);
  EXPECT_NEAR(compare_pair(many.a, many.b, {}).resolution, kResolution, 0.4 * kResolution);
}

TEST(PairTest, OneDocumentTellsNothing) {
  const auto [a, b] = make(1, -1, 0.05);
  const auto pair = compare_pair(a, b, {});
  EXPECT_EQ(pair.loss_verdict, Verdict::kNotDistinguishable);
  EXPECT_FALSE(pair.enough);
  EXPECT_EQ(pair.tokens_needed, 0);
}

TEST(PairTest, VerdictsHaveNames) {
  EXPECT_EQ(name_of(Verdict::kBetter), "better");
  EXPECT_EQ(name_of(Verdict::kWorse), "worse");
  EXPECT_EQ(name_of(Verdict::kNotDistinguishable), "not distinguishable");
}

}  // namespace
}  // namespace spectralquant::evaluate
