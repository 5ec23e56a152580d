#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "model/difference.h"
#include "model/stock_logits.h"
#include "model/tiny_dense.h"
#include "spectralquant/core/error.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/model/model.h"

namespace spectralquant::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using torch::Tensor;

/// Odd numbers of heads; every optional tensor there and not there; tied and not; one head size
/// that is no share of the hidden size.
/// Experts, an odd number of them too; q, k and v in one matrix.
void add_variants(std::vector<TinyDenseOptions>& all) {
  const auto like = [&](std::size_t i, const char* architecture) {
    TinyDenseOptions options = all[i];
    options.architecture = architecture;
    return options;
  };
  TinyDenseOptions bare = like(4, "qwen3moe"), full = like(5, "qwen3moe"),
                   mixtral = like(1, "llama");
  for (TinyDenseOptions* options : {&bare, &full, &mixtral}) {
    options->feed_forward = 96;
    options->n_experts = 5;
  }
  full.n_experts = 8;
  full.n_experts_used = 3;
  all.insert(all.end(), {bare, full, mixtral});
  for (const auto& [i, architecture] :
       {std::pair{std::size_t{0}, "llama"}, {std::size_t{3}, "qwen2"}, {std::size_t{5}, "qwen3"}}) {
    all.push_back(like(i, architecture));
    all.back().fused_qkv = true;
  }
}

std::vector<TinyDenseOptions> variants() {
  std::vector<TinyDenseOptions> all;
  for (const char* name : {"llama", "qwen2", "qwen3"}) {
    TinyDenseOptions options;
    options.architecture = name;
    options.hidden = 192;
    options.feed_forward = 320;
    options.n_heads = 3;
    options.n_kv_heads = 1;
    options.head_size = 64;
    all.push_back(options);
    options.tied = false;
    options.optional_tensors = true;
    options.n_heads = options.n_kv_heads = 6;
    options.head_size = 32;
    options.seed = 2;
    if (options.architecture != "qwen2") {
      options.n_heads = 9;
      options.n_kv_heads = 3;
      options.head_size = 24;
    }
    all.push_back(options);
  }
  add_variants(all);
  return all;
}

std::string name_of(const TinyDenseOptions& options) {
  return options.architecture + (options.n_experts > 0 ? "_experts" : "") +
         (options.fused_qkv ? "_fused" : "") + (options.optional_tensors ? "_full" : "_bare");
}

class DenseTest : public ::testing::TestWithParam<int> {
 protected:
  DenseTest() {
    std::filesystem::create_directories(folder_);
    options_ = variants()[static_cast<std::size_t>(GetParam())];
    file_ = std::make_unique<gguf::File>(gguf::File::open(write_tiny_dense(path(), options_)));
    model_ = std::make_unique<Model>(*file_);
  }
  ~DenseTest() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/dense.gguf"; }
  Tensor tokens(std::int64_t n) const {
    torch::manual_seed(n);
    return torch::randint(0, kTinyVocab, {2, n}, torch::kInt64);
  }

  std::string folder_ = ::testing::TempDir() + "/sq_dense_" + std::to_string(::getpid());
  TinyDenseOptions options_;
  std::unique_ptr<gguf::File> file_;
  std::unique_ptr<Model> model_;
};

INSTANTIATE_TEST_SUITE_P(Variants, DenseTest, ::testing::Range(0, 12), [](const auto& info) {
  return name_of(variants()[static_cast<std::size_t>(info.param)]);
});

TEST_P(DenseTest, StatesGiveTheLogitsOfTheWholeSequence) {
  torch::NoGradGuard no_grad;
  const auto ids = tokens(70), whole = model_->forward(ids);
  std::vector<BlockState> states(model_->architecture().n_blocks());
  std::int64_t first = 0;
  for (const std::int64_t length : {33, 1, 1, 35}) {
    auto x = model_->embed(ids.narrow(1, first, length));
    for (std::int64_t i = 0; i < model_->architecture().n_blocks(); ++i)
      x = model_->block(i, x, nullptr, &states[i]);
    const auto logits = model_->head(model_->final_norm(x));
    EXPECT_LT(difference(logits, whole.narrow(1, first, length)), 2e-4) << first;
    first += length;
  }
}

TEST_P(DenseTest, PartsDoWhatTheySay) {
  torch::NoGradGuard no_grad;
  auto x = model_->embed(tokens(9));
  for (std::int64_t i = 0; i < model_->architecture().n_blocks(); ++i) {
    const auto parts = model_->architecture().parts(i);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const auto y = model_->part(i, p, x);
      const auto& stage = parts[p].stages.back();
      const auto& last = stage[0][0];
      EXPECT_EQ(parts[p].mixes_tokens, p == 0);
      if (stage.size() > 1) {  // experts: their products are weighed
        EXPECT_FALSE(parts[p].adds_last_product) << last;
        x = y;
        continue;
      }
      const double apart = difference(
          y, x + torch::linear(model_->inputs_of(stage, i, p, x)[0], model_->weights().get(last)));
      EXPECT_EQ(parts[p].adds_last_product, apart == 0) << last;
      x = y;
    }
  }
}

TEST_P(DenseTest, TapsSeeEveryMatrix) {
  std::set<MatrixId> seen;
  const Tap tap = [&](const MatrixId& id, const Tensor&, const Tensor&) { seen.insert(id); };
  torch::NoGradGuard no_grad;
  model_->forward(tokens(48), &tap);
  EXPECT_EQ(seen, gathered_weights(model_->architecture()));
  for (const auto& tensor : file_->tensors()) {
    if (!gguf::is_matrix_to_quantize(file_->architecture(), tensor) ||
        tensor.name == "token_embd.weight")
      continue;
    for (const auto& matrix : gguf::matrices_of(tensor))
      EXPECT_TRUE(seen.contains(matrix.id())) << matrix.id();
  }
}

TEST_P(DenseTest, EveryTensorTakesPart) {
  torch::NoGradGuard no_grad;
  const auto ids = tokens(12), before = model_->forward(ids);
  for (const auto& tensor : file_->tensors()) {
    if (tensor.name == "rope_freqs.weight") continue;  // read once, with the hyper-parameters
    const auto own = model_->weights().get(tensor.name);
    // a bias of all keys alike moves every score of a query alike: disturb it unevenly
    model_->weights().set(tensor.name, own + 0.3 * torch::randn_like(own));
    EXPECT_GT(difference(model_->forward(ids), before), 1e-4) << tensor.name;
    model_->weights().reset(tensor.name);
  }
}

// tests/golden/model/dense_logits_N.bin: log-probabilities by stock llama-perplexity 0.7.0 (build
// 11669) of the file that variants()[N] describes, as its 16 bits decode: int32 ids [48]; float32
// [3, vocabulary] of the positions below. Written by the test LogitsAreThoseOfStock with
// SQ_WRITE_GOLDEN=FOLDER in the environment.
constexpr std::int64_t kGoldenTokens = 48;
const std::vector<std::int64_t> kGoldenPositions{24, 35, 46};

TEST_P(DenseTest, LogitsAreStocksGoldenOnes) {
  std::ifstream in(
      SQ_SOURCE_DIR "/tests/golden/model/dense_logits_" + std::to_string(GetParam()) + ".bin",
      std::ios::binary);
  ASSERT_TRUE(in);
  const auto read = [&in](auto& values) {
    in.read(reinterpret_cast<char*>(values.data()), values.size() * sizeof(values[0]));
  };
  std::vector<std::int32_t> ids(kGoldenTokens);
  read(ids);
  torch::NoGradGuard no_grad;
  const auto logits = model_->forward(to_tensor({ids}, 0, 1, torch::kCPU)).log_softmax(-1)[0];
  for (const std::int64_t position : kGoldenPositions) {
    std::vector<float> expected(kTinyVocab);
    read(expected);
    ASSERT_TRUE(in);
    // Stock keeps keys and values in float16: single log-probabilities differ by up to 0.01, single
    // positions by up to 2e-5 nats. The next test holds the mean of a text below 1e-5.
    const Tensor theirs = torch::tensor(expected).to(torch::kFloat64);
    const Tensor apart = theirs.exp() * (theirs - logits[position].to(torch::kFloat64));
    EXPECT_LT(apart.sum().item<double>(), 2e-5);
    EXPECT_LT(difference(logits[position], torch::tensor(expected)), 2e-2);
  }
}

/// Text of pseudo-random words, of as many bytes.
std::string some_text(std::size_t n_bytes) {
  std::mt19937_64 random(3);
  std::string text;
  while (text.size() < n_bytes) {
    for (int i = 0, n = 2 + static_cast<int>(random() % 7); i < n; ++i)
      text += static_cast<char>('a' + random() % 26);
    text += random() % 9 ? ' ' : '\n';
  }
  return text;
}

TEST_P(DenseTest, LogitsAreThoseOfStock) {
  if (test::find_tool("llama-perplexity").empty())
    GTEST_SKIP() << "llama-perplexity not found: put it on PATH or set LLAMA_CPP_BIN";
  std::ofstream(folder_ + "/text.txt") << some_text(8000);
  for (const int n_tokens : {static_cast<int>(kGoldenTokens), 1100}) {
    // Stock attends in float16. Where two experts are all but equal, that much changes the choice
    // between them.
    const char* exact = options_.n_experts > 0 ? "-ctk f32 -ctv f32 -fa off" : "";
    const auto stock = test::run_stock(path(), folder_ + "/text.txt", n_tokens, folder_, exact);
    ASSERT_EQ(stock.problem, "");
    ASSERT_GE(stock.windows.size(), 2u);
    torch::NoGradGuard no_grad;
    double kl = 0, loss = 0, stock_loss = 0, entropy = 0;
    std::int64_t n = 0;
    for (std::size_t w = 0; w < std::min<std::size_t>(4, stock.windows.size()); ++w) {
      const auto ours = model_->forward(to_tensor(stock.windows, w, 1, torch::kCPU))
                            .to(torch::kFloat64)
                            .log_softmax(-1)[0]
                            .slice(0, stock.first, n_tokens - 1);
      const auto theirs = stock.log_p[w].to(torch::kFloat64), p = theirs.exp();
      const auto next =
          to_tensor(stock.windows, w, 1, torch::kCPU)[0].slice(0, stock.first + 1, n_tokens);
      kl += (p * (theirs - ours)).sum().item<double>();
      entropy -= (p * theirs).sum().item<double>();
      loss -= ours.gather(1, next.unsqueeze(1)).sum().item<double>();
      stock_loss -= theirs.gather(1, next.unsqueeze(1)).sum().item<double>();
      n += ours.size(0);
    }
    EXPECT_LT(kl / n, 1e-5);
    EXPECT_NEAR(std::exp((loss - stock_loss) / n), 1, 5e-4);
    EXPECT_LT(entropy / n, 5.0) << "nearly flat: log 320 is 5.77";
    std::printf("%d tokens: KLD %.2e, perplexity %+.4f %%, entropy %.2f\n", n_tokens, kl / n,
                100 * (std::exp((loss - stock_loss) / n) - 1), entropy / n);
    const char* golden = std::getenv("SQ_WRITE_GOLDEN");
    if (!golden || n_tokens != kGoldenTokens) continue;
    std::ofstream out(std::string(golden) + "/dense_logits_" + std::to_string(GetParam()) + ".bin",
                      std::ios::binary);
    out.write(reinterpret_cast<const char*>(stock.windows[0].data()), 4 * kGoldenTokens);
    for (const std::int64_t position : kGoldenPositions)
      out.write(reinterpret_cast<const char*>(
                    stock.log_p[0][position - stock.first].contiguous().data_ptr<float>()),
                4 * kTinyVocab);
  }
}

/// What make_architecture() says of a file; "" if nothing.
std::string refusal(const TinyDenseOptions& options) {
  const std::string path =
      ::testing::TempDir() + "/sq_dense_refusal_" + std::to_string(::getpid()) + ".gguf";
  std::string text;
  try {
    make_architecture(gguf::File::open(write_tiny_dense(path, options)));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    text = error.what();
  }
  std::remove(path.c_str());
  return text;
}

std::string refusal_of(const std::string& architecture, const char* key, gguf::Value value) {
  TinyDenseOptions options = variants().front();
  options.architecture = architecture;
  options.edit = [&](gguf::Metadata& m, std::vector<TinyTensor>&) {
    m.set(architecture + "." + key, value);
  };
  return refusal(options);
}

TEST(DenseRefusalTest, NamesWhatItDoesNotRun) {
  EXPECT_THAT(refusal_of("qwen2", "expert_count", gguf::Value::of_u32(8)),
              AllOf(HasSubstr("qwen2.expert_count is 8"), HasSubstr("this program cannot run")));
  EXPECT_THAT(refusal_of("qwen2", "rope.dimension_count", gguf::Value::of_u32(32)),
              HasSubstr("but all 64 dimensions of a head turn"));
  EXPECT_THAT(refusal_of("qwen3", "rope.scaling.type", gguf::Value::of_string("su")),
              HasSubstr("which llama.cpp does not know"));
  TinyDenseOptions options = variants()[2];
  options.edit = [](gguf::Metadata&, std::vector<TinyTensor>& tensors) {
    tensors.push_back({"output.bias", {kTinyVocab}, std::vector<float>(kTinyVocab)});
  };
  EXPECT_THAT(refusal(options), HasSubstr("output.bias changes what a product gives"));
}

/// What the refusal is with this key of the experts.
std::string expert_refusal(const char* key, std::uint32_t value) {
  TinyDenseOptions options = variants()[6];
  options.edit = [&](gguf::Metadata& m, std::vector<TinyTensor>&) {
    m.set(std::string("qwen3moe.") + key, gguf::Value::of_u32(value));
  };
  return refusal(options);
}

TEST(DenseRefusalTest, CountsOfExpertsAreChecked) {
  EXPECT_THAT(expert_refusal("expert_used_count", 6), HasSubstr("expert_used_count is 6, of 5"));
  EXPECT_THAT(expert_refusal("expert_count", 1), HasSubstr("expert_used_count is 2, of 1 experts"));
  EXPECT_THAT(expert_refusal("expert_count", 4), HasSubstr("ffn_gate_inp.weight has shape"));
  EXPECT_THAT(expert_refusal("expert_group_count", 2), HasSubstr("groups of experts are not run"));
  EXPECT_THAT(expert_refusal("expert_feed_forward_length", 64),
              HasSubstr("ffn_gate_exps.weight has shape"));
}

// Each token by itself, expert by expert, in double.
TEST(ExpertsTest, AreTheSumOfTheChosenExperts) {
  const std::string path =
      ::testing::TempDir() + "/sq_experts_" + std::to_string(::getpid()) + ".gguf";
  const auto file = gguf::File::open(write_tiny_dense(path, variants()[7]));
  Model model(file);
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  const Tensor x = torch::randn({1, 6, 192});
  Routing routing;
  const Tensor y = model.part(0, 1, x, nullptr, &routing);
  ASSERT_EQ(routing.experts.sizes(), torch::IntArrayRef({6, 3}));
  const auto weight = [&](const char* part, std::int64_t expert) {
    return model.weights()
        .get({std::string("blk.0.") + part + ".weight", expert})
        .to(torch::kFloat64);
  };
  for (std::int64_t t = 0; t < 6; ++t) {
    const Tensor row = x[0][t].to(torch::kFloat64),
                 inner = row / (row.square().mean() + 1e-6).sqrt() *
                         model.weights().get("blk.0.ffn_norm.weight").to(torch::kFloat64),
                 p = weight("ffn_gate_inp", MatrixId::kWhole).mv(inner).softmax(0);
    const auto [values, indices] = p.topk(3);
    EXPECT_TRUE(torch::equal(std::get<0>(indices.sort()), std::get<0>(routing.experts[t].sort())));
    Tensor sum = row.clone();
    for (std::int64_t k = 0; k < 3; ++k) {
      const auto e = indices[k].item<std::int64_t>();
      const Tensor product =
          torch::silu(weight("ffn_gate_exps", e).mv(inner)) * weight("ffn_up_exps", e).mv(inner);
      sum += values[k] / values.sum() * weight("ffn_down_exps", e).mv(product);
    }
    EXPECT_LT(difference(y[0][t].to(torch::kFloat64), sum), 1e-4) << t;
  }
  // What is imposed is obeyed, and differs.
  routing.experts = (routing.experts + 1) % 8;
  EXPECT_GT(difference(model.part(0, 1, x, nullptr, &routing), y), 1e-2);
  std::remove(path.c_str());
}

TEST(DenseRefusalTest, EveryTensorsShapeIsChecked) {
  for (const auto& options : variants()) {
    for (const auto& tensor : tiny::make_tensors(options)) {
      TinyDenseOptions broken = options;
      broken.edit = [&](gguf::Metadata&, std::vector<TinyTensor>& all) {
        for (auto& t : all) {
          if (t.name != tensor.name) continue;
          t.shape[0] -= 1;
          t.values.resize(t.values.size() / tensor.shape[0] * t.shape[0]);
        }
      };
      EXPECT_THAT(refusal(broken), HasSubstr(tensor.name + " has shape"));
    }
  }
}

}  // namespace
}  // namespace spectralquant::model
