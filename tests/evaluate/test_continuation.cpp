// Prompts, and how long two models write the same.
#include "evaluate_fixture.h"
#include "spectralquant/evaluate/continuation.h"

namespace spectralquant::evaluate {
namespace {

using Rows = std::vector<std::vector<text::TokenId>>;

TEST(CommonPrefixesTest, CountsTokensUntilTheyDiffer) {
  const Rows reference = {{1, 2, 3, 4, 5, 6, 7, 8},
                          {1, 2, 3, 4, 5, 6, 7, 8},
                          {1, 2, 3, 4, 5, 6, 7, 8},
                          {1, 2, 3, 4, 5, 6, 7, 8}};
  const Rows candidate = {{9, 2, 3, 4, 5, 6, 7, 8},
                          {1, 2, 3, 4, 9, 6, 7, 8},
                          {1, 2, 3, 4, 5, 6, 9, 8},
                          {1, 2, 3, 4, 5, 6, 7, 8}};
  const auto d = compare_continuations(reference, candidate);
  EXPECT_EQ(d.same, (std::vector<std::int64_t>{0, 4, 6, 8}));
  EXPECT_EQ(d.median, 5.0);
  EXPECT_DOUBLE_EQ(d.identical, 0.25);
  EXPECT_DOUBLE_EQ(d.agreement, (0 + 4 + 6 + 8) / 32.0);
  const std::vector<std::pair<std::int64_t, double>> curve = {
      {0, 1}, {1, .75}, {2, .75}, {3, .75}, {4, .75}, {6, .5}, {8, .25}};
  EXPECT_EQ(d.curve, curve);
}

TEST(CommonPrefixesTest, ThereIsNoMedianWhenMostNeverDiffer) {
  const Rows same = {{1, 2}, {3, 4}, {5, 6}};
  const auto d = compare_continuations(same, same);
  EXPECT_FALSE(d.median.has_value());
  EXPECT_DOUBLE_EQ(d.identical, 1);
  EXPECT_DOUBLE_EQ(d.agreement, 1);
  EXPECT_EQ(d.curve.back(), std::pair(std::int64_t{2}, 1.0));
  EXPECT_TRUE(compare_continuations({}, {}).curve.empty());
}

class ContinuationTest : public SuiteFixture {};

TEST_F(ContinuationTest, PromptsAreTheBeginningsOfLongItems) {
  std::string lines;
  for (int i = 0; i < 10; ++i)
    lines += "{\"text\": \"" + std::string(i % 2 ? 3 : 9, static_cast<char>('0' + i)) + "\"}\n";
  spew(path("t.jsonl"), lines);
  const auto suite = load("", "t.jsonl");
  const auto prompts = take_prompts(suite, 3, 5);
  ASSERT_EQ(prompts.tokens.size(), 3u);
  EXPECT_EQ(prompts.tokens[0], tokenizer().encode("00000"));
  EXPECT_EQ(prompts.tokens[1], tokenizer().encode("22222"));
  EXPECT_EQ(prompts.tokens[2], tokenizer().encode("66666"));
  EXPECT_EQ(take_prompts(suite, 64, 5).tokens.size(), 5u);
  EXPECT_TRUE(take_prompts(suite, 64, 50).tokens.empty());
}

TEST_F(ContinuationTest, AModelContinuesAsItselfAndTheCacheKnowsIt) {
  const auto file = gguf::File::open(model::write_tiny_qwen35(path("tiny.gguf")));
  const auto suite = load_text("4x12",
                               "the sea of stone runs to a river and the night is long and the "
                               "river runs to a sea of stone");
  const auto prompts = take_prompts(suite, 64, 6);
  Cache cache(path("cache"));
  Subject subject(file, {});
  const auto written = continuations(subject, prompts, 7, model::kTinyEos, cache);
  ASSERT_EQ(written.size(), prompts.tokens.size());
  EXPECT_EQ(written[0].size(), 7u);
  Subject again(file, {});
  EXPECT_EQ(continuations(again, prompts, 7, model::kTinyEos, cache), written);
  EXPECT_FALSE(again.is_loaded());
  continuations(again, prompts, 8, model::kTinyEos, cache);
  EXPECT_TRUE(again.is_loaded());
}

TEST_F(ContinuationTest, AfterTheEndComesTheEnd) {
  const auto file = gguf::File::open(model::write_tiny_qwen35(path("tiny.gguf")));
  const auto suite = load_text("4x12",
                               "the sea of stone runs to a river and the night is long and the "
                               "river runs to a sea of stone");
  const auto prompts = take_prompts(suite, 64, 6);
  Cache none;
  Subject subject(file, {});
  const auto written = continuations(subject, prompts, 9, model::kTinyEos, none);
  const auto end = written[0][4];  // any token may play the end
  for (const auto& row : continuations(subject, prompts, 9, end, none)) {
    const auto at = std::find(row.begin(), row.end(), end);
    EXPECT_EQ(std::count(at, row.end(), end), row.end() - at);
  }
}

}  // namespace
}  // namespace spectralquant::evaluate
