// Loss kept or loss moved: the verdicts on made-up models whose behaviour is known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "spectralquant/evaluate/alignment.h"

namespace spectralquant::evaluate {
namespace {

using testing::HasSubstr;

/// A reference and a model whose loss changes by `change` and whose KLD is `kld`, on 40 documents
/// of 20 tokens.
struct Scored {
  Positions reference, model;
};
Scored make(double change, double kld, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  Scored out;
  for (std::int32_t d = 0; d < 40; ++d) {
    for (int t = 0; t < 20; ++t) {
      const double loss = 3 + normal(random);
      out.reference.loss.push_back(static_cast<float>(loss));
      out.model.loss.push_back(static_cast<float>(loss + change + 0.02 * normal(random)));
      out.model.kld.push_back(static_cast<float>(kld * (1 + 0.2 * normal(random))));
      for (auto* p : {&out.reference, &out.model}) {
        p->delta_p.push_back(0);
        p->same_top.push_back(1);
        p->unit.push_back(d);
      }
      out.reference.kld.push_back(0);
    }
  }
  return out;
}

AlignmentInput input(const char* name, std::optional<Seen> seen, const Scored& s,
                     const Scored* control = nullptr) {
  return {name, seen, &s.reference, &s.model, control ? &control->model : nullptr};
}

TEST(AlignmentTest, DamageThatIsTheSameEverywhereIsKept) {
  const auto same = make(0.02, 0.02, 1), never = make(0.02, 0.02, 2);
  const auto out = judge_alignment(
      {input("same", Seen::kSameSource, same), input("never", Seen::kNever, never)}, {});
  ASSERT_EQ(out.size(), 2u);
  for (const auto& a : out) {
    EXPECT_EQ(a.verdict, "kept") << a.text;
    EXPECT_NEAR(a.drift.mean, 0, 0.005);
    EXPECT_FALSE(a.below_reference);
  }
  ASSERT_TRUE(out[0].excess_drift.has_value());
  EXPECT_FALSE(out[1].excess_drift.has_value());
  EXPECT_THAT(out[0].text, HasSubstr("KLD 0.0201"));
}

TEST(AlignmentTest, MoreDriftWhereTheTextIsOfTheCalibrationsKindIsAligned) {
  const auto same = make(-0.01, 0.02, 1), never = make(0.02, 0.02, 2);
  const auto out = judge_alignment(
      {input("same", Seen::kSameSource, same), input("never", Seen::kNever, never)}, {});
  EXPECT_EQ(out[0].verdict, "aligned") << out[0].text;
  EXPECT_TRUE(out[0].below_reference);
  EXPECT_NEAR(out[0].excess_drift->mean, 0.03, 0.005);
  EXPECT_NEAR(out[0].excess_gain->mean, 0.03, 0.005);
  EXPECT_THAT(out[0].text, HasSubstr("moved towards the kind of text that it was calibrated on"));
  EXPECT_EQ(out[1].verdict, "kept");
}

TEST(AlignmentTest, AControlThatDoesTheSameTakesTheVerdictBack) {
  const auto same = make(-0.01, 0.02, 1), never = make(0.02, 0.02, 2);
  // as much excess, without the text
  const auto same_control = make(-0.01, 0.03, 1), never_control = make(0.03, 0.03, 2);
  const auto out = judge_alignment({input("same", Seen::kSameSource, same, &same_control),
                                    input("never", Seen::kNever, never, &never_control)},
                                   {});
  ASSERT_TRUE(out[0].control_excess_drift.has_value());
  EXPECT_LT(out[0].control_excess_drift->low, 0.0);
  EXPECT_EQ(out[0].verdict, "shifted") << out[0].text;
  const auto innocent = make(0.03, 0.03, 1);
  const auto again = judge_alignment({input("same", Seen::kSameSource, same, &innocent),
                                      input("never", Seen::kNever, never, &never_control)},
                                     {});
  EXPECT_EQ(again[0].verdict, "aligned") << again[0].text;
}

TEST(AlignmentTest, LossBelowTheReferenceEverywhereIsAShift) {
  const auto one = make(-0.02, 0.02, 1), two = make(-0.02, 0.02, 2);
  for (const auto& a :
       judge_alignment({input("one", Seen::kNever, one), input("two", Seen::kSameSource, two)}, {}))
    EXPECT_EQ(a.verdict, "shifted") << a.text;
}

TEST(AlignmentTest, WithoutACalibrationTextALowLossIsUnexplained) {
  const auto low = make(-0.02, 0.02, 1), high = make(0.02, 0.02, 2);
  const auto out =
      judge_alignment({input("low", std::nullopt, low), input("high", std::nullopt, high)}, {});
  EXPECT_EQ(out[0].verdict, "unexplained");
  EXPECT_EQ(out[1].verdict, "kept");
}

TEST(AlignmentTest, ALeakedSuiteIsCalledThatWhateverItsFigures) {
  for (const double change : {-0.05, 0.02}) {
    const auto leaked = make(change, 0.02, 1), never = make(0.02, 0.02, 2);
    const auto out = judge_alignment(
        {input("leaked", Seen::kCalibratedOn, leaked), input("never", Seen::kNever, never)}, {});
    EXPECT_EQ(out[0].verdict, "leaked");
    EXPECT_THAT(out[0].text, HasSubstr("tell nothing about other text"));
  }
}

}  // namespace
}  // namespace spectralquant::evaluate
