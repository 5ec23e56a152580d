#include <gtest/gtest.h>

#include "spectralquant/gguf/matrix.h"

namespace spectralquant::gguf {
namespace {

TEST(MatrixIdTest, TextsComeBack) {
  for (const MatrixId& id :
       {MatrixId("blk.0.ffn_up.weight"), MatrixId("blk.0.ffn_up_exps.weight", 0),
        MatrixId("blk.0.ffn_up_exps.weight", 127)})
    EXPECT_EQ(MatrixId::parse(id.text()), id) << id.text();
  EXPECT_EQ(MatrixId("a.weight", 7).text(), "a.weight[7]");
  for (const char* whole :
       {"", "a", "a[]", "a[x]", "a[-1]", "a[1", "a[1]b", "[99999999999999999999]"})
    EXPECT_EQ(MatrixId::parse(whole), MatrixId(whole)) << whole;
}

TEST(MatrixIdTest, SlicesFollowTheirTensorByNumber) {
  EXPECT_LT(MatrixId("a", 9), MatrixId("a", 10));
  EXPECT_LT(MatrixId("a"), MatrixId("a", 0));
  EXPECT_LT(MatrixId("a", 10), MatrixId("b"));
}

TEST(MatrixTest, AStackIsItsSlices) {
  Tensor stack{"exps", Type::F32, 3, {4, 2, 3, 1}, nullptr, 96};
  const auto slices = matrices_of(stack);
  ASSERT_EQ(slices.size(), 3u);
  EXPECT_EQ(slices[2].id(), MatrixId("exps", 2));
  EXPECT_EQ(slices[2].rows(), 2);
  EXPECT_EQ(slices[2].cols(), 4);
  EXPECT_EQ(slices[2].first_row(), 4u);
  stack.shape = {4, 6, 1, 1};
  ASSERT_EQ(matrices_of(stack).size(), 1u);
  EXPECT_EQ(matrices_of(stack)[0].id(), MatrixId("exps"));
  EXPECT_EQ(matrices_of(stack)[0].rows(), 6);
}

}  // namespace
}  // namespace spectralquant::gguf
