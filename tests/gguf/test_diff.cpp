#include <gtest/gtest.h>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/diff.h"

namespace spectralquant::gguf {
namespace {

using test::HandMade;
using test::le;
using test::str;

class DiffTest : public test::FolderTest {
 protected:
  Difference compare_bytes(const HandMade& left, const HandMade& right) const {
    return compare(File::open(put("left.gguf", left.bytes())),
                   File::open(put("right.gguf", right.bytes())));
  }
};

TEST_F(DiffTest, EqualFilesDoNotDiffer) {
  const Difference d = compare_bytes(test::small_file(), test::small_file());
  EXPECT_TRUE(d.identical());
  EXPECT_EQ(d.n_keys_equal, 2u);
  EXPECT_EQ(d.n_tensors_equal, 2u);
}

TEST_F(DiffTest, NamesKeys) {
  const auto words = [](const std::string& tenth) {
    std::string bytes = le<std::uint32_t>(8) + le<std::uint64_t>(12);
    for (int i = 0; i < 12; ++i) bytes += str(i == 10 ? tenth : "same");
    return bytes;
  };
  HandMade left, right;
  left.key("only.left", 4, le<std::uint32_t>(1))
      .key("n", 4, le<std::uint32_t>(2))
      .key("type", 4, le<std::uint32_t>(3))
      .key("words", 9, words("x"));
  right.key("n", 4, le<std::uint32_t>(5))
      .key("type", 5, le<std::uint32_t>(3))
      .key("words", 9, words("y"))
      .key("only.right", 7, "\1");
  const Difference d = compare_bytes(left, right);
  ASSERT_EQ(d.keys.size(), 5u);
  EXPECT_EQ(d.keys[0].key, "only.left");
  EXPECT_EQ(d.keys[0].left, "1");
  EXPECT_EQ(d.keys[0].right, std::nullopt);
  EXPECT_EQ(d.keys[1].right, "5");
  EXPECT_EQ(d.keys[2].left, "3 (u32)");
  EXPECT_EQ(d.keys[2].right, "3 (i32)");
  EXPECT_EQ(d.keys[3].left, "[12 strings], element 10 is \"x\"");
  EXPECT_EQ(d.keys[3].right, "[12 strings], element 10 is \"y\"");
  EXPECT_EQ(d.keys[4].right, "true");
}

TEST_F(DiffTest, CountsBytesAndBlocks) {
  HandMade left;
  left.tensor("q", {256, 40000}, 12, 0)
      .tensor("shape", {8}, 0, 5'760'000)
      .tensor("gone", {8}, 0, 5'760'032);
  left.data = std::string(5'760'064, '\0');
  HandMade right;
  right.tensor("q", {256, 40000}, 12, 0).tensor("shape", {4, 2}, 0, 5'760'000);
  right.data = std::string(5'760'032, '\0');
  // blocks 0, 1, 1 and the last, chunks apart
  for (const std::size_t at : {143, 144, 145, 5'759'999}) right.data[at] = 'x';
  const Difference d = compare_bytes(left, right);
  ASSERT_EQ(d.tensors.size(), 3u);
  EXPECT_TRUE(d.tensors[0].same_layout());
  EXPECT_EQ(d.tensors[0].n_blocks, 40000u);
  EXPECT_EQ(d.tensors[0].n_blocks_different, 3u);
  EXPECT_EQ(d.tensors[0].n_bytes_different, 4u);
  EXPECT_EQ(d.tensors[1].left, "F32 [8]");
  EXPECT_EQ(d.tensors[1].right, "F32 [4, 2]");
  EXPECT_EQ(d.tensors[2].right, std::nullopt);
}

}  // namespace
}  // namespace spectralquant::gguf
