#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "model/tiny_model.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/sampling.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::model {
namespace {

using ::testing::HasSubstr;

class SamplingTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = ::testing::TempDir() + "/sq_sampling_" + std::to_string(::getpid()) + ".gguf";
    file_ = new gguf::File(gguf::File::open(write_tiny_qwen35(path_)));
  }
  static void TearDownTestSuite() {
    delete file_;
    std::remove(path_.c_str());
  }
  static inline std::string path_;
  static inline gguf::File* file_ = nullptr;
  Model model_{*file_};
};

TEST_F(SamplingTest, StatesGiveTheLogitsOfTheWholeSequence) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(5);
  const auto tokens = torch::randint(0, kTinyVocab, {3, 150}, torch::kInt64);
  const auto whole = model_.forward(tokens);
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>(150, 1), {100, 1, 1, 1, 47}, {1, 64, 65, 20}}) {
    std::vector<BlockState> states(model_.architecture().n_blocks());
    std::int64_t first = 0;
    for (const auto length : lengths) {
      auto x = model_.embed(tokens.narrow(1, first, length));
      for (std::int64_t i = 0; i < model_.architecture().n_blocks(); ++i)
        x = model_.block(i, x, nullptr, &states[i]);
      const auto logits = model_.head(model_.final_norm(x));
      EXPECT_LT((logits - whole.narrow(1, first, length)).abs().max().item<double>(), 1e-4)
          << first;
      first += length;
      for (const auto& state : states) EXPECT_EQ(state.n_past, first);
    }
  }
}

TEST_F(SamplingTest, IsAFunctionOfSeedAndNotOfTheBatch) {
  SamplingOptions options;
  options.window_tokens = 20;
  options.seed = 11;
  const auto windows = sample(model_, 5, options);
  ASSERT_EQ(windows.size(), 5u);
  for (const auto& window : windows) {
    ASSERT_EQ(window.size(), 20u);
    for (const auto id : window) EXPECT_TRUE(id >= 0 && id < static_cast<std::int32_t>(kTinyVocab));
  }
  EXPECT_NE(windows[0], windows[1]);
  EXPECT_EQ(sample(model_, 5, options), windows);
  options.batch = 2;
  EXPECT_EQ(sample(model_, 5, options), windows);
  options.seed = 12;
  EXPECT_NE(sample(model_, 5, options), windows);
}

TEST_F(SamplingTest, TemperatureZeroTakesTheLikeliestToken) {
  SamplingOptions options;
  options.window_tokens = 8;
  options.temperature = 0;
  options.first_token = kTinyEos;
  const auto window = sample(model_, 1, options).front();
  torch::NoGradGuard no_grad;
  auto tokens = torch::full({1, 1}, std::int64_t{kTinyEos});
  for (const auto id : window) {
    EXPECT_EQ(model_.forward(tokens).select(1, -1).argmax(-1).item<std::int64_t>(), id);
    tokens = torch::cat({tokens, torch::full({1, 1}, std::int64_t{id})}, 1);
  }
}

TEST_F(SamplingTest, ContinuesEveryPromptWithItsLikeliestTokens) {
  const std::vector<std::vector<std::int32_t>> prompts = {
      {1, 2, 3, 4, 5}, {250, 3, 9, 77, 12}, {31, 41, 59, 26, 53}};
  const auto written = continue_greedily(model_, prompts, 6);
  ASSERT_EQ(written.size(), prompts.size());
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    ASSERT_EQ(written[i].size(), 6u);
    std::vector<std::int64_t> tokens(prompts[i].begin(), prompts[i].end());
    for (const auto id : written[i]) {
      EXPECT_EQ(model_.forward(torch::tensor(tokens).unsqueeze(0))
                    .select(1, -1)
                    .argmax(-1)
                    .item<std::int64_t>(),
                id);
      tokens.push_back(id);
    }
  }
  EXPECT_TRUE(continue_greedily(model_, {}, 6).empty());
  try {
    continue_greedily(model_, {{1, 2}, {1}}, 6);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("prompts of 2 and 1 tokens"));
  }
}

TEST_F(SamplingTest, FollowsTheModelsDistribution) {
  SamplingOptions options;
  options.window_tokens = 1;
  options.temperature = 0.7;
  const std::int64_t n = 4000;
  torch::NoGradGuard no_grad;
  auto counts = torch::zeros({kTinyVocab}, torch::kFloat64);
  for (const auto& window : sample(model_, n, options)) counts[window[0]] += 1;
  const auto expected =
      torch::softmax(
          model_.forward(torch::zeros({1, 1}, torch::kInt64))[0][0].to(torch::kFloat64) / 0.7, 0) *
      n;
  // Chi-square over tokens expected at least five times, the rest in one bin: mean k − 1, deviation
  // sqrt(2 (k − 1)).
  const auto often = expected >= 5;
  const auto chi =
      ((counts - expected).square() / expected).masked_select(often).sum().item<double>();
  const auto k = often.sum().item<double>();
  ASSERT_GT(k, 5);
  EXPECT_LT(chi, k + 5 * std::sqrt(2 * k));
}

TEST_F(SamplingTest, ReportsEveryStep) {
  SamplingOptions options;
  options.window_tokens = 3;
  options.batch = 2;
  std::vector<std::uint64_t> done;
  sample(model_, 3, options, [&](const ProgressEvent& event) {
    EXPECT_EQ(event.total, 9u);
    EXPECT_EQ(event.unit, "tokens");
    done.push_back(event.done);
  });
  EXPECT_EQ(done, (std::vector<std::uint64_t>{2, 4, 6, 7, 8, 9}));
}

TEST_F(SamplingTest, RefusesImpossibleOptions) {
  const auto refusal = [&](std::int64_t n, auto change) -> std::string {
    SamplingOptions options;
    change(options);
    try {
      sample(model_, n, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(-1, [](auto&) {}), HasSubstr("-1 windows"));
  EXPECT_THAT(refusal(1, [](auto& o) { o.window_tokens = 0; }), HasSubstr("windows of 0 tokens"));
  EXPECT_THAT(refusal(1, [](auto& o) { o.temperature = -0.5; }), HasSubstr("temperature is -0.5"));
  EXPECT_THAT(refusal(1, [](auto& o) { o.batch = -3; }), HasSubstr("batch of -3"));
  EXPECT_THAT(refusal(1, [](auto& o) { o.first_token = kTinyVocab; }),
              HasSubstr("first token 320 is outside the vocabulary of 320"));
  EXPECT_TRUE(sample(model_, 0, {}).empty());
}

TEST(ThreadsTest, SetsTorchsThreads) {
  const int before = at::get_num_threads();
  set_threads(1);
  EXPECT_EQ(at::get_num_threads(), 1);
  set_threads(2);
  EXPECT_EQ(at::get_num_threads(), 2);
  set_threads(before);
}

TEST(ThreadsTest, TellsTheSpeedOfTheBlas) { EXPECT_NO_THROW(blas_is_slow()); }

}  // namespace
}  // namespace spectralquant::model
