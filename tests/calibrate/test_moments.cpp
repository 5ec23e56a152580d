#include "calibrate/calibrate_fixture.h"
#include "spectralquant/calibrate/moments.h"

namespace spectralquant::calibrate {
namespace {

TEST(MomentTest, IsUndefinedWithoutVectors) {
  EXPECT_FALSE(Moment().mean().defined());
  EXPECT_EQ(Moment().count(), 0);
}

TEST(MomentTest, IsTheMeanOfProducts) {
  torch::manual_seed(1);
  const torch::Tensor a = torch::randn({3, 50, 8}), b = torch::randn({3, 50, 5});
  Moment moment;
  for (int i = 0; i < 3; ++i) moment.add(a[i], b[i]);
  const torch::Tensor expected =
      a.view({-1, 8}).to(torch::kFloat64).t().mm(b.view({-1, 5}).to(torch::kFloat64)) / 150;
  EXPECT_EQ(moment.count(), 150);
  EXPECT_LT(difference(moment.mean(), expected), 1e-6);
  EXPECT_EQ(moment.mean().scalar_type(), torch::kFloat32);
}

TEST(MomentTest, OfOneVectorIsExactlySymmetric) {
  torch::manual_seed(2);
  Moment moment;
  for (int i = 0; i < 5; ++i) moment.add(torch::randn({2, 31, 67}));
  EXPECT_TRUE(torch::equal(moment.mean(), moment.mean().t()));
}

TEST(MomentTest, SumsManyBatchesWithoutLosingTheSmallOnes) {
  Moment moment;  // a float32 sum would stay at 2^24
  moment.add(torch::full({1, 1}, 4096.0f));
  for (int i = 0; i < 1000; ++i) moment.add(torch::full({1, 1}, 1.0f));
  EXPECT_FLOAT_EQ(moment.mean().item<float>(), static_cast<float>((4096.0 * 4096 + 1000) / 1001));
}

TEST(MomentTest, TakesHalfPrecisionVectorsAsTheyAre) {
  const torch::Tensor x = torch::full({4, 2}, 3.0f).to(torch::kBFloat16);
  Moment moment;
  moment.add(x);
  EXPECT_TRUE(torch::equal(moment.mean(), torch::full({2, 2}, 9.0f)));
}

}  // namespace
}  // namespace spectralquant::calibrate
