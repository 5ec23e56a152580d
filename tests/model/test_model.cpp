#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <set>

#include "model/difference.h"
#include "model/tiny_model.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/model.h"

namespace spectralquant::model {
namespace {

using ::testing::HasSubstr;
using torch::Tensor;

const std::string kNano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";

Tensor random_tokens(std::int64_t n_sequences, std::int64_t n_tokens,
                     std::int64_t vocab_size = kTinyVocab) {
  torch::manual_seed(n_tokens);
  return torch::randint(0, vocab_size, {n_sequences, n_tokens}, torch::kInt64);
}

/// Message of the Error that `body` throws.
template <typename Body>
std::string refusal(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class ModelTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = ::testing::TempDir() + "/sq_model_" + std::to_string(::getpid()) + ".gguf";
    write_tiny_qwen35(path_);
    file_ = new gguf::File(gguf::File::open(path_));
  }
  static void TearDownTestSuite() {
    delete file_;
    std::remove(path_.c_str());
  }
  static inline std::string path_;
  static inline gguf::File* file_ = nullptr;
  Model model_{*file_};
};

// tests/golden/model/nano_logits.bin: logits of models/nano-qwen35-bf16.gguf by an independent
// PyTorch implementation of the architecture (float32, CPU, token ids by stock llama-tokenize).
// Little endian: int32 n_windows, n_tokens, n_positions, vocabulary; int32 ids [n_windows,
// n_tokens]; int32 (window, token) [n_positions, 2]; float32 logits [n_positions, vocabulary].
TEST(GoldenModelTest, LogitsAreThoseOfAnIndependentImplementation) {
  std::ifstream in(SQ_SOURCE_DIR "/tests/golden/model/nano_logits.bin", std::ios::binary);
  ASSERT_TRUE(in);
  const auto read = [&in](auto& values) {
    in.read(reinterpret_cast<char*>(values.data()), values.size() * sizeof(values[0]));
  };
  std::vector<std::int32_t> sizes(4);
  read(sizes);
  std::vector<std::vector<std::int32_t>> windows(sizes[0], std::vector<std::int32_t>(sizes[1]));
  for (auto& window : windows) read(window);
  std::vector<std::int32_t> positions(2 * sizes[2]);
  read(positions);
  torch::NoGradGuard no_grad;
  const auto file = gguf::File::open(kNano);
  Model model(file);
  const auto logits = model.forward(to_tensor(windows, 0, windows.size(), torch::kCPU));
  for (int i = 0; i < sizes[2]; ++i) {
    std::vector<float> expected(sizes[3]);
    read(expected);
    ASSERT_TRUE(in);
    const auto ours = logits[positions[2 * i]][positions[2 * i + 1]];
    EXPECT_LT(difference(ours, torch::tensor(expected)), 1e-3);
  }
}

TEST_F(ModelTest, LogitsDoNotDependOnTheBatchNorOnWhatFollows) {
  torch::NoGradGuard no_grad;
  const auto tokens = random_tokens(3, 200);
  const auto all = model_.forward(tokens);
  EXPECT_EQ(all.sizes(), (std::vector<std::int64_t>{3, 200, kTinyVocab}));
  EXPECT_LT(difference(model_.forward(tokens.narrow(0, 1, 1)), all.narrow(0, 1, 1)), 1e-4);
  for (std::int64_t length : {1, 63, 64, 65, 129}) {
    EXPECT_LT(difference(model_.forward(tokens.narrow(1, 0, length)), all.narrow(1, 0, length)),
              1e-4)
        << length;
  }
}

TEST_F(ModelTest, LongInputsStayFinite) {
  torch::NoGradGuard no_grad;
  const auto tokens = random_tokens(1, 3000);
  const auto logits = model_.forward(tokens);
  EXPECT_TRUE(torch::isfinite(logits).all().item<bool>());
  EXPECT_LT(difference(model_.forward(tokens.narrow(1, 0, 700)), logits.narrow(1, 0, 700)), 1e-4);
}

TEST_F(ModelTest, BlockByBlockIsForward) {
  torch::NoGradGuard no_grad;
  const auto tokens = random_tokens(2, 40);
  auto x = model_.embed(tokens);
  for (std::int64_t i = 0; i < model_.architecture().n_blocks(); ++i) {
    x = model_.block(i, x);
    model_.weights().release("blk." + std::to_string(i) + ".");
  }
  EXPECT_EQ(difference(model_.head(model_.final_norm(x)), model_.forward(tokens)), 0);
}

TEST_F(ModelTest, Bfloat16IsCloseToFloat32) {
  torch::NoGradGuard no_grad;
  Model rough(*file_, {torch::kCPU, torch::kBFloat16});
  const auto tokens = random_tokens(2, 100);
  const auto exact = model_.forward(tokens), logits = rough.forward(tokens);
  EXPECT_EQ(logits.scalar_type(), torch::kBFloat16);
  const auto error = (logits.to(torch::kFloat32) - exact).square().mean().sqrt().item<double>();
  // a bfloat16 has 8 bits: 0.4 % an operation
  EXPECT_LT(error / exact.square().mean().sqrt().item<double>(), 0.03);
  EXPECT_EQ(rough.weights().get("blk.0.attn_norm.weight").scalar_type(), torch::kFloat32);
  EXPECT_EQ(rough.weights().get("blk.0.ffn_up.weight").scalar_type(), torch::kBFloat16);
}

TEST_F(ModelTest, TapsSeeEveryMatrixOnceInTheOrderOfTheStages) {
  for (const bool tied : {true, false}) {
    TinyOptions options;
    options.tied = tied;
    const std::string path = path_ + ".tap";
    const auto file = gguf::File::open(write_tiny_qwen35(path, options));
    Model model(file);
    std::vector<MatrixId> seen, expected;
    std::map<MatrixId, Tensor> inputs;
    const Tap tap = [&](const MatrixId& name, const Tensor& input, const Tensor& output) {
      seen.push_back(name);
      inputs[seen.back()] = input;
      EXPECT_EQ(difference(output, torch::linear(input, model.weights().get(seen.back()))), 0)
          << name;
    };
    torch::NoGradGuard no_grad;
    model.forward(random_tokens(2, 10), &tap);
    for (std::int64_t i = 0; i < model.architecture().n_blocks(); ++i) {
      for (const auto& part : model.architecture().parts(i)) {
        for (const auto& stage : part.stages) {
          ASSERT_EQ(stage.size(), 1u);
          for (const auto& name : stage[0]) {
            expected.push_back(name);
            EXPECT_TRUE(inputs[name].is_same(inputs[stage[0][0]])) << name << " shares its input";
          }
        }
      }
    }
    expected.push_back(model.architecture().head_name());
    EXPECT_EQ(seen, expected);
    std::set<std::string> matrices;  // every matrix of the file is either tapped or the embedding
    for (const auto& tensor : file.tensors()) {
      if (tensor.n_dims == 2 && tensor.name.find("conv1d") == std::string::npos &&
          tensor.name != model.architecture().embedding_name()) {
        EXPECT_EQ(inputs.count(tensor.name), 1u) << tensor.name;
      }
    }
    std::remove(path.c_str());
  }
}

// What the contract of Part says of its last product, and of tokens.
TEST_F(ModelTest, PartsDoWhatTheySay) {
  torch::NoGradGuard no_grad;
  auto x = model_.embed(random_tokens(2, 9));
  for (std::int64_t i = 0; i < model_.architecture().n_blocks(); ++i) {
    const auto parts = model_.architecture().parts(i);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const auto y = model_.part(i, p, x);
      const auto& stage = parts[p].stages.back();
      const auto& last = stage[0][0];
      const auto product =
          torch::linear(model_.inputs_of(stage, i, p, x)[0], model_.weights().get(last));
      EXPECT_TRUE(parts[p].adds_last_product);
      EXPECT_EQ(difference(y, x + product), 0) << last;
      const auto alone = model_.part(i, p, x.narrow(1, 5, 1));
      const double apart = difference(alone, y.narrow(1, 5, 1));
      EXPECT_EQ(parts[p].mixes_tokens, apart > 1e-5) << apart;
      x = y;
    }
  }
}

TEST_F(ModelTest, ADraftBlockReadsTheHiddenStateBesideTheNextToken) {
  TinyOptions options;
  options.draft = true;
  const std::string path = path_ + ".draft";
  const auto file = gguf::File::open(write_tiny_qwen35(path, options));
  Model model(file);
  torch::NoGradGuard no_grad;
  const auto tokens = random_tokens(2, 12);
  auto x = model.embed(tokens);
  for (std::int64_t i = 0; i < 2; ++i) x = model.block(i, x);
  const auto hidden = model.final_norm(x);
  const auto unit = [](const Tensor& v) {  // RMS norm without a weight
    return v * torch::rsqrt(v.square().mean(-1, true) + 1e-6);
  };
  const auto input = model.draft_input(2, tokens, hidden);
  const auto norm = [&](const char* name) {
    return model.weights().get(std::string("blk.2.nextn.") + name + ".weight");
  };
  const auto expected = torch::cat({unit(model.embed(tokens.narrow(1, 1, 11))) * norm("enorm"),
                                    unit(hidden.narrow(1, 0, 11)) * norm("hnorm")},
                                   -1);
  EXPECT_LT(difference(input, expected), 1e-5);
  EXPECT_EQ(difference(model.part(2, 0, input),
                       torch::linear(input, model.weights().get("blk.2.nextn.eh_proj.weight"))),
            0);
  EXPECT_EQ(model.block(2, input).sizes(), (std::vector<std::int64_t>{2, 11, 256}));
  std::remove(path.c_str());
}

TEST_F(ModelTest, SetWeightsTakeEffectUntilReset) {
  torch::NoGradGuard no_grad;
  const auto tokens = random_tokens(1, 20);
  const auto before = model_.forward(tokens);
  for (const auto& tensor : file_->tensors()) {
    const auto own = model_.weights().get(tensor.name);
    model_.weights().set(tensor.name, own + 0.5 * own.std() * torch::randn_like(own) + 0.1 * own);
    EXPECT_GT(difference(model_.forward(tokens), before), 1e-4) << tensor.name;
    model_.weights().release("");  // what was set stays
    EXPECT_GT(difference(model_.forward(tokens), before), 1e-4) << tensor.name;
    model_.weights().reset(tensor.name);
    EXPECT_EQ(difference(model_.forward(tokens), before), 0) << tensor.name;
  }
}

TEST_F(ModelTest, WeightsRefuseWrongShapesAndNames) {
  EXPECT_THAT(
      refusal([&] {
        model_.weights().set("blk.0.ffn_up.weight", torch::zeros({256, 512}));
      }),
      HasSubstr(
          "a value of shape [256, 512] was set for blk.0.ffn_up.weight, which has [512, 256]"));
  EXPECT_THAT(refusal([&] { model_.weights().set("blk.0.ffn_up.weight", {}); }),
              HasSubstr("undefined"));
  EXPECT_THAT(refusal([&] { model_.weights().get("blk.7.ffn_up.weight"); }),
              HasSubstr("blk.7.ffn_up.weight"));
  EXPECT_FALSE(model_.weights().has("blk.7.ffn_up.weight"));
  EXPECT_TRUE(model_.weights().has("blk.1.ffn_up.weight"));
}

TEST_F(ModelTest, RefusesTokensItDoesNotKnow) {
  EXPECT_THAT(refusal([&] {
                model_.forward(torch::full({1, 3}, std::int64_t{kTinyVocab}));
              }),
              HasSubstr("token 320 is outside the vocabulary of 320"));
  EXPECT_THAT(refusal([&] {
                model_.forward(torch::full({1, 3}, std::int64_t{-1}));
              }),
              HasSubstr("token -1"));
  EXPECT_THAT(refusal([&] { model_.forward(torch::zeros({3}, torch::kInt64)); }),
              HasSubstr("tokens must be int64 [sequences, tokens]"));
  EXPECT_THAT(refusal([&] {
                model_.forward(torch::zeros({1, 3}));
              }),
              HasSubstr("tokens must be int64"));
  EXPECT_THAT(refusal([&] {
                model_.forward(torch::zeros({1, 0}, torch::kInt64));
              }),
              HasSubstr("tokens must be"));
}

TEST_F(ModelTest, RefusesComputeTypesAndDevicesItCannotUse) {
  EXPECT_THAT(refusal([&] {
                Model(*file_, {torch::kCPU, torch::kFloat64});
              }),
              HasSubstr("compute type Double is not supported"));
  if (!torch::cuda::is_available()) {
    EXPECT_THAT(refusal([&] {
                  Model(*file_, {torch::kCUDA, torch::kFloat32});
                }),
                HasSubstr("no CUDA device"));
  }
}

TEST(ToTensorTest, StacksEqualWindowsAndRefusesOthers) {
  const std::vector<std::vector<std::int32_t>> windows{{1, 2}, {3, 4}, {5, 6}, {7}};
  EXPECT_TRUE(
      to_tensor(windows, 1, 2, torch::kCPU).equal(torch::tensor({{3, 4}, {5, 6}}, torch::kInt64)));
  EXPECT_THAT(refusal([&] { to_tensor(windows, 2, 2, torch::kCPU); }),
              HasSubstr("window 3 has 1 tokens"));
  EXPECT_THAT(refusal([&] { to_tensor(windows, 3, 2, torch::kCPU); }),
              HasSubstr("windows 3 to 5 of 4"));
}

TEST_F(ModelTest, GradientsAgreeWithFiniteDifferences) {
  const auto tokens = random_tokens(2, 70);
  torch::manual_seed(3);
  const auto direction_of_logits = torch::randn({2, 70, kTinyVocab});
  const auto loss = [&] {
    return (torch::log_softmax(model_.forward(tokens), -1).to(torch::kFloat64) *
            direction_of_logits)
               .mean() *
           100;
  };
  for (const auto& tensor : file_->tensors()) {
    const auto original = model_.weights().get(tensor.name);
    auto variable = original.clone().requires_grad_();
    model_.weights().set(tensor.name, variable);
    loss().backward();
    ASSERT_TRUE(variable.grad().defined()) << tensor.name;
    // Along the gradient itself the slope is its norm. Steps of this length move the loss well
    // above float32's noise; the five-point formula takes care of the curvature they meet.
    const auto gradient = variable.grad();
    const double norm = gradient.norm().item<double>();
    ASSERT_GT(norm, 0) << tensor.name;
    const double step = 1e-3 * original.norm().item<double>();
    torch::NoGradGuard no_grad;
    const auto loss_at = [&](double length) {
      model_.weights().set(tensor.name, original + gradient * (length / norm));
      return loss().item<double>();
    };
    const double slope =
        (8 * (loss_at(step) - loss_at(-step)) - (loss_at(2 * step) - loss_at(-2 * step))) /
        (12 * step);
    EXPECT_NEAR(slope / norm, 1.0, 0.02) << tensor.name;
    model_.weights().reset(tensor.name);
  }
}

TEST_F(ModelTest, GradientsReachTheInputOfABlock) {
  auto x = model_.embed(random_tokens(1, 66)).detach().requires_grad_();
  model_.block(1, model_.block(0, x)).square().sum().backward();
  EXPECT_TRUE(torch::isfinite(x.grad()).all().item<bool>());
  EXPECT_GT(x.grad().abs().min().item<double>(), 0);
}

}  // namespace
}  // namespace spectralquant::model
