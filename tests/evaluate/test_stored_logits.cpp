// Predictions stored by llama-perplexity: what is read, what is refused, and what they are worth.
#include <fmt/format.h>

#include <cmath>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/divergence.h"
#include "stored_file.h"

namespace spectralquant::evaluate {
namespace {

using testing::HasSubstr;

/// Rows of one position each, as they come back from a file.
struct Stored {
  std::vector<std::vector<std::uint16_t>> levels;
  std::vector<StoredRow> rows;
  torch::Tensor log_p;  ///< of what is stored, [n, V] in double
};

Stored store(const torch::Tensor& logits) {
  Stored out;
  const auto n = logits.size(0), vocab_size = logits.size(1);
  out.log_p = torch::empty({n, vocab_size}, torch::kFloat64);
  for (std::int64_t r = 0; r < n; ++r) {
    const auto* x = logits.data_ptr<float>() + r * vocab_size;
    const std::string bytes =
        stored_bytes({{0, 0, 0, 0}}, {{std::vector<float>(x, x + vocab_size)}});
    StoredRow row;
    std::memcpy(&row.step, bytes.data() + 36, 4);
    std::memcpy(&row.lowest, bytes.data() + 40, 4);
    out.levels.emplace_back(vocab_size);
    std::memcpy(out.levels.back().data(), bytes.data() + 44, 2 * vocab_size);
    row.levels = out.levels.back();
    out.rows.push_back(row);
    for (std::int64_t v = 0; v < vocab_size; ++v)
      out.log_p[r][v] = row.lowest + static_cast<double>(row.step) * row.levels[v];
  }
  return out;
}

TEST(StoredDivergenceTest, BothWaysAreTheDefinition) {
  torch::manual_seed(3);
  for (const auto& [n, vocab_size] : {std::pair{3, 1500}, {2, 17}, {5, 1024}, {1, 1}}) {
    const auto hidden = torch::randn({n, 16}), head = torch::randn({vocab_size, 16});
    const auto stored = store(hidden.matmul(head.t()).contiguous());
    const Predictions q{hidden + 0.1 * torch::randn({n, 16}), head};
    const auto targets = torch::randint(vocab_size, {n}, torch::kInt64);
    const auto log_q = q.hidden.matmul(head.t()).to(torch::kFloat64).log_softmax(-1);
    const auto terms = stored.log_p.exp() * (stored.log_p - log_q);
    const auto kld = terms.masked_fill(stored.log_p <= -16, 0).sum(-1);
    for (const auto& d :
         {diverge_fused(stored.rows, q, targets), diverge_plainly(stored.rows, q, targets)}) {
      EXPECT_LT((d.kld.to(torch::kFloat64) - kld).abs().max().item<double>(), 1e-5);
      const auto loss = -log_q.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
      EXPECT_LT((d.loss.to(torch::kFloat64) - loss).abs().max().item<double>(), 1e-5);
      EXPECT_TRUE(d.same_top.to(torch::kBool).equal(stored.log_p.argmax(-1).eq(log_q.argmax(-1))));
    }
  }
}

class StoredLogitsTest : public SuiteFixture {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 12; ++i) text += fmt::format("the sea {} of stone ", i * 7919 % 97);
    model::TinyOptions options;
    options.edit = [](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
      for (auto& v : tensors[0].values) v *= 0.25f;  // the tied head: logits of a usual spread
    };
    for (const auto seed : {1, 2}) {
      options.seed = static_cast<std::uint64_t>(seed);
      model::write_tiny_qwen35(path(fmt::format("{}.gguf", seed)), options);
    }
    suite_ = load_text("c16", text);
    bytes_ = stored(path("1.gguf"));
  }
  /// What llama-perplexity would store of a model on suite_.
  std::string stored(const std::string& model_path) const {
    torch::NoGradGuard no_grad;
    const auto file = gguf::File::open(model_path);
    model::Model model(file);
    const auto hidden = hidden_states(model, suite_);
    std::vector<std::vector<std::int32_t>> tokens;
    std::vector<std::vector<std::vector<float>>> logits;
    for (std::size_t i = 0; i < suite_.items.size(); ++i) {
      tokens.push_back(suite_.items[i].tokens);
      logits.emplace_back();
      const auto all = model.head(hidden[i]).contiguous();
      for (std::int64_t r = 0; r < all.size(0); ++r) {
        const float* row = all.data_ptr<float>() + r * all.size(1);
        logits.back().emplace_back(row, row + all.size(1));
      }
    }
    return stored_bytes(tokens, logits);
  }
  StoredLogits open(const std::string& bytes) const {
    spew(path("base.kld"), bytes);
    return StoredLogits::open(path("base.kld"));
  }
  std::string refused(const std::string& bytes) const {
    return refusal([&] { open(bytes); });
  }
  Suite suite_;
  std::string bytes_;
};

TEST_F(StoredLogitsTest, TheSuiteIsTheOneItWasStoredOn) {
  const auto stored = open(bytes_);
  const auto suite = suite_of(stored, tokenizer());
  EXPECT_EQ(suite.hash, suite_.hash);
  EXPECT_EQ(suite.n_units, suite_.n_units);
  EXPECT_EQ(suite.spec.name, "base.kld");
  EXPECT_EQ(suite.spec.protocol_text, "c16");
  EXPECT_EQ(stored.rows_per_window(), 7);
}

TEST_F(StoredLogitsTest, BosStandsOverTheFirstTokenOfAWindow) {
  metadata_.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(model::kTinyEos));
  metadata_.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(true));
  const auto suite = suite_of(open(bytes_), tokenizer());
  for (const auto& item : suite.items) EXPECT_EQ(item.tokens[0], model::kTinyEos);
}

TEST_F(StoredLogitsTest, ScoresAreThoseOfTheOriginalButFor16Bits) {
  const auto stored = open(bytes_);
  const auto suite = suite_of(stored, tokenizer());
  const auto original_file = gguf::File::open(path("1.gguf")),
             candidate_file = gguf::File::open(path("2.gguf"));
  model::Model original(original_file), candidate(candidate_file);
  const auto hidden = hidden_states(original, suite);
  const auto near = [](const Positions& a, const Positions& b) {
    ASSERT_EQ(a.loss.size(), b.loss.size());
    EXPECT_EQ(a.unit, b.unit);
    EXPECT_EQ(a.same_top, b.same_top);
    for (std::size_t i = 0; i < a.loss.size(); ++i) {
      EXPECT_NEAR(a.loss[i], b.loss[i], 2e-4);  // half a step is 1.2e-4
      EXPECT_NEAR(a.kld[i], b.kld[i], 4e-4);
      EXPECT_NEAR(a.delta_p[i], b.delta_p[i], 2e-4);
    }
  };
  near(measure(stored, suite), measure(original, hidden, suite));
  near(compare(stored, candidate, suite), compare(original, hidden, candidate, suite));
  EXPECT_LT(std::abs(summarize(compare(stored, original, suite), nullptr, nullptr).kld.mean), 1e-4);
}

TEST_F(StoredLogitsTest, WhatIsCutOffIsRefusedWithTheWindow) {
  EXPECT_THAT(refused(bytes_.substr(0, bytes_.size() - 1)),
              HasSubstr(fmt::format("is cut off: {} of {} windows are whole",
                                    suite_.items.size() - 1, suite_.items.size())));
  EXPECT_THAT(refused(bytes_.substr(0, 30)), HasSubstr("0 of"));
  EXPECT_THAT(refused(bytes_.substr(0, 15)), HasSubstr("is cut off in its head"));
  EXPECT_THAT(refused(bytes_ + "x"), HasSubstr("1 bytes after its last window"));
}

TEST_F(StoredLogitsTest, WhatIsNoSuchFileIsRefused) {
  for (const std::string other : {"", "GGUF", "a text", "_logit"})
    EXPECT_THAT(refused(other), HasSubstr("holds no predictions of llama-perplexity"));
  EXPECT_THAT(refusal([&] { StoredLogits::open(path("none")); }), HasSubstr("cannot open"));
  EXPECT_THAT(refusal([&] { StoredLogits::open(path("")); }), HasSubstr("a folder"));
  const auto with = [&](std::size_t at, auto value) {
    std::string bytes = bytes_;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
  };
  EXPECT_THAT(refused(with(8, std::int32_t{-1})), HasSubstr("windows of -1 tokens"));
  EXPECT_THAT(refused(with(8, std::int32_t{0x7fffffff})), HasSubstr("is cut off"));
  EXPECT_THAT(refused(with(12, std::int32_t{0x7fffffff})), HasSubstr("is cut off"));
  EXPECT_THAT(refused(with(16, std::int32_t{0x7fffffff})), HasSubstr("is cut off"));
  EXPECT_THAT(refused(with(20, std::int32_t{320})), HasSubstr("token 320 of a vocabulary of 320"));
  const std::size_t first_row = 20 + 4 * 16 * suite_.items.size();
  const auto message = refused(with(first_row, std::nanf("")));
  EXPECT_THAT(message, HasSubstr("not finite"));
  EXPECT_THAT(message, HasSubstr("window 1, token 9"));
}

TEST_F(StoredLogitsTest, AnotherVocabularyIsRefused) {
  const auto stored = open(stored_bytes({{1, 2, 3, 4}}, {{{0.f, 1.f, 2.f, 3.f, 4.f}}}));
  EXPECT_THAT(refusal([&] { suite_of(stored, tokenizer()); }),
              HasSubstr("a vocabulary of 5 tokens; the candidates have 320"));
}

}  // namespace
}  // namespace spectralquant::evaluate
