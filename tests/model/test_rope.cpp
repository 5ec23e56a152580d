#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "model/stock_logits.h"
#include "model/tiny_model.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/rope.h"

namespace spectralquant::model {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using Edit = std::function<void(gguf::Metadata&)>;

class RopeTest : public ::testing::Test {
 protected:
  RopeTest() { std::filesystem::create_directories(folder_); }
  ~RopeTest() override { std::filesystem::remove_all(folder_); }
  gguf::File write(const Edit& edit) const {
    TinyOptions options;
    options.hidden = options.feed_forward = 64;
    options.head_size = 32;
    options.state_size = 16;
    options.n_blocks = 4;  // every second one turns; stock cannot do without the others
    options.type = gguf::Type::F32;
    options.edit = [&](gguf::Metadata& m, std::vector<TinyTensor>& tensors) {
      // much attention to few tokens, so that positions matter
      for (auto& tensor : tensors) {
        if (tensor.name.find("_norm") != std::string::npos && tensor.shape[0] == 32)
          for (float& value : tensor.values) value *= 2;
      }
      edit(m);
    };
    return gguf::File::open(write_tiny_qwen35(folder_ + "/rope.gguf", options));
  }
  Rope read(const Edit& edit) const {
    const auto file = write(edit);
    return read_rope(HyperParameters(file), 32);
  }
  std::string folder_ = ::testing::TempDir() + "/sq_rope_" + std::to_string(::getpid());
};

void set(gguf::Metadata& m, const char* key, gguf::Value value) {
  m.set(std::string("qwen35.rope.") + key, std::move(value));
}

TEST_F(RopeTest, ScalesLinearlyUnlessToldOtherwise) {
  const auto factor = [](float f) {
    return [f](gguf::Metadata& m) { set(m, "scaling.factor", gguf::Value::of_f32(f)); };
  };
  EXPECT_TRUE(read([](gguf::Metadata&) {}).scale.empty());
  EXPECT_TRUE(read(factor(1)).scale.empty());
  EXPECT_TRUE(read(factor(0)).scale.empty());
  const auto four = read(factor(4));
  EXPECT_EQ(four.scale.size(), 8u);
  EXPECT_THAT(four.scale, Each(0.25f));
  EXPECT_EQ(four.magnitude, 1);
  EXPECT_THAT(read([](gguf::Metadata& m) { set(m, "scale_linear", gguf::Value::of_f32(2)); }).scale,
              Each(0.5f));
  EXPECT_TRUE(read([](gguf::Metadata& m) {
                set(m, "scaling.factor", gguf::Value::of_f32(4));
                set(m, "scaling.type", gguf::Value::of_string("none"));
              }).scale.empty());
}

TEST_F(RopeTest, YarnKeepsFastPairsAndScalesSlowOnes) {
  const auto rope = read([](gguf::Metadata& m) {
    set(m, "freq_base", gguf::Value::of_f32(100));
    set(m, "scaling.type", gguf::Value::of_string("yarn"));
    set(m, "scaling.factor", gguf::Value::of_f32(8));
    set(m, "scaling.original_context_length", gguf::Value::of_u32(512));
  });
  EXPECT_EQ(rope.scale.front(), 1);  // 81 turns over 512 tokens
  EXPECT_TRUE(std::is_sorted(rope.scale.rbegin(), rope.scale.rend()));
  // 32 turns lie behind pair 1 and one turn before pair 8; pair 4 is three sevenths of that way
  EXPECT_NEAR(rope.scale[4], 1.0 / 8 * (3.0 / 7) + 4.0 / 7, 1e-6);
  EXPECT_NEAR(rope.magnitude, 1 + 0.1 * std::log(8.0), 1e-9);
}

TEST_F(RopeTest, RefusesWhatLlamaCppDoesNotKnow) {
  const auto refusal = [&](const Edit& edit) -> std::string {
    try {
      read(edit);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(
      refusal([](gguf::Metadata& m) { set(m, "scaling.type", gguf::Value::of_string("su")); }),
      HasSubstr("rope.scaling.type is su, which llama.cpp does not know"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) { set(m, "freq_base", gguf::Value::of_f32(0)); }),
              HasSubstr("rope.freq_base is 0, which must be above 0"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) { set(m, "dimension_count", gguf::Value::of_u32(5)); }),
              HasSubstr("rope.dimension_count is 5"));
}

// Every way to scale, and what stands still in sections that do not cover a head, against stock.
TEST_F(RopeTest, TurnsAsStockDoes) {
  if (test::find_tool("llama-perplexity").empty())
    GTEST_SKIP() << "llama-perplexity not found: put it on PATH or set LLAMA_CPP_BIN";
  {
    std::ofstream text(folder_ + "/text.txt");
    std::mt19937_64 random(3);
    for (int i = 0; i < 900; ++i) text << static_cast<char>('a' + random() % 26);
  }
  const std::vector<std::pair<const char*, Edit>> cases{
      {"defaults",
       [](gguf::Metadata& m) {
         for (const char* key : {"freq_base", "dimension_count"})
           m.erase(std::string("qwen35.rope.") + key);
         set(m, "dimension_sections", tiny::of_i32s({6, 5, 5, 0}));
       }},
      {"a factor without a type",
       [](gguf::Metadata& m) { set(m, "scaling.factor", gguf::Value::of_f32(3)); }},
      {"the older key", [](gguf::Metadata& m) { set(m, "scale_linear", gguf::Value::of_f32(3)); }},
      {"yarn",
       [](gguf::Metadata& m) {
         set(m, "scaling.type", gguf::Value::of_string("yarn"));
         set(m, "scaling.factor", gguf::Value::of_f32(4));
         set(m, "scaling.original_context_length", gguf::Value::of_u32(64));
       }},
      {"a factor of attention",
       [](gguf::Metadata& m) { set(m, "scaling.attn_factor", gguf::Value::of_f32(1.5)); }},
      {"sections", [](gguf::Metadata& m) {
         set(m, "dimension_sections", tiny::of_i32s({1, 1, 1, 3}));
       }}};
  torch::NoGradGuard no_grad;
  torch::Tensor plain;
  for (const auto& [name, edit] : cases) {
    const auto file = write(edit);
    const auto stock = test::run_stock(file.path(), folder_ + "/text.txt", 128, folder_);
    ASSERT_EQ(stock.problem, "") << name;
    Model model(file);
    const auto tokens = to_tensor(stock.windows, 0, 1, torch::kCPU);
    const auto ours = model.forward(tokens).log_softmax(-1)[0].slice(0, stock.first, 127);
    const auto theirs = stock.log_p[0];
    const double kl = (theirs.exp() * (theirs - ours)).sum(-1).mean().item<double>();
    EXPECT_LT(kl, 1e-5) << name;
    if (!plain.defined()) {
      const auto usual = write([](gguf::Metadata&) {});
      plain = Model(usual).forward(tokens).log_softmax(-1)[0].slice(0, stock.first, 127);
    }
    const double apart = (theirs.exp() * (theirs - plain)).sum(-1).mean().item<double>();
    EXPECT_GT(apart, 1e-4) << name << " changes hardly anything";
    std::printf("%s: KLD %.2e, without it %.2e\n", name, kl, apart);
  }
}

}  // namespace
}  // namespace spectralquant::model
