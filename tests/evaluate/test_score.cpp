// Scores against a plain computation from whole logits.
#include <algorithm>
#include <cmath>

#include "evaluate_fixture.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::evaluate {
namespace {

using testing::Each;
using testing::HasSubstr;

/// A tiny reference and a candidate with other weights.
class ScoreTest : public SuiteFixture {
 protected:
  struct Loaded {
    explicit Loaded(const std::string& path) : file(gguf::File::open(path)), model(file) {}
    gguf::File file;
    model::Model model;
  };
  std::unique_ptr<Loaded> tiny(
      std::uint64_t seed,
      std::function<void(gguf::Metadata&, std::vector<model::TinyTensor>&)> edit = {}) {
    model::TinyOptions options;
    options.seed = seed;
    options.edit = [&](gguf::Metadata& metadata, std::vector<model::TinyTensor>& tensors) {
      // the tied head: logits of a trained model's spread, not ten times it
      for (auto& v : tensors[0].values) v *= 0.25f;
      if (edit) edit(metadata, tensors);
    };
    return std::make_unique<Loaded>(
        model::write_tiny_qwen35(path("tiny" + std::to_string(seed) + ".gguf"), options));
  }
  void SetUp() override {
    reference_ = tiny(1);
    candidate_ = tiny(2);
    std::string lines;
    for (const auto* text : {"the sea", "a river runs to the sea of stone, and the night is long",
                             "0123", "of night and stone", "to a"})
      lines += std::string("{\"text\": \"") + text + "\"}\n";
    spew(path("texts.jsonl"), lines);
  }
  void TearDown() override { model::set_threads(0); }

  Positions scores(model::Model& candidate, const Suite& suite, std::int64_t batch_tokens = 0) {
    EvaluateOptions options;
    options.batch_tokens = batch_tokens;
    return compare(reference_->model, hidden_states(reference_->model, suite, options), candidate,
                   suite, options);
  }

  std::unique_ptr<Loaded> reference_, candidate_;
};

/// The same, item by item, from whole logits in double.
Positions plain_scores(model::Model& reference, model::Model& candidate, const Suite& suite) {
  torch::NoGradGuard no_grad;
  Positions out;
  for (const Item& item : suite.items) {
    const auto tokens =
        torch::tensor(std::vector<std::int64_t>(item.tokens.begin(), item.tokens.end()))
            .unsqueeze(0);
    const auto p = reference.forward(tokens)[0].to(torch::kFloat64),
               q = candidate.forward(tokens)[0].to(torch::kFloat64);
    const auto n_tokens = static_cast<std::int64_t>(item.tokens.size()), vocab = p.size(1);
    for (std::int64_t t = item.first_scored; t < n_tokens; ++t) {
      const auto a = p[t - 1].contiguous(), b = q[t - 1].contiguous();
      const double *pa = a.data_ptr<double>(), *pb = b.data_ptr<double>();
      double sum_a = 0, sum_b = 0, kld = 0;
      for (std::int64_t v = 0; v < vocab; ++v) sum_a += std::exp(pa[v]), sum_b += std::exp(pb[v]);
      for (std::int64_t v = 0; v < vocab; ++v)
        kld += std::exp(pa[v]) / sum_a * (pa[v] - std::log(sum_a) - pb[v] + std::log(sum_b));
      const double true_p = std::exp(pa[item.tokens[t]]) / sum_a,
                   true_q = std::exp(pb[item.tokens[t]]) / sum_b;
      out.loss.push_back(static_cast<float>(-std::log(true_q)));
      out.kld.push_back(static_cast<float>(kld));
      out.delta_p.push_back(static_cast<float>(true_q - true_p));
      out.same_top.push_back(std::max_element(pa, pa + vocab) - pa ==
                             std::max_element(pb, pb + vocab) - pb);
      out.unit.push_back(static_cast<std::int32_t>(item.document));
    }
  }
  return out;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b, double tolerance,
                 const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], tolerance * std::max(1.0f, std::abs(b[i]))) << what << " at " << i;
}

void expect_near(const Positions& a, const Positions& b, double tolerance) {
  expect_near(a.loss, b.loss, tolerance, "loss");
  expect_near(a.kld, b.kld, tolerance, "kld");
  expect_near(a.delta_p, b.delta_p, tolerance, "delta_p");
  EXPECT_EQ(a.same_top, b.same_top);
  EXPECT_EQ(a.unit, b.unit);
}

TEST_F(ScoreTest, EveryProtocolAgreesWithWholeLogits) {
  for (const auto* protocol : {"documents", "3x8", "c12"}) {
    SCOPED_TRACE(protocol);
    const Suite suite = load(protocol, "texts.jsonl");
    const Positions expected = plain_scores(reference_->model, candidate_->model, suite);
    ASSERT_EQ(static_cast<std::int64_t>(expected.loss.size()), suite.n_scored);
    // the two do differ
    EXPECT_GT(*std::max_element(expected.kld.begin(), expected.kld.end()), 0.1);
    expect_near(scores(candidate_->model, suite), expected, 1e-5);
  }
}

TEST_F(ScoreTest, TheReferenceAgreesWithItself) {
  const Suite suite = load("", "texts.jsonl");
  const Positions self = scores(reference_->model, suite);
  expect_near(self.loss, plain_scores(reference_->model, reference_->model, suite).loss, 1e-5,
              "loss");
  EXPECT_THAT(self.kld, Each(0.0f));
  EXPECT_THAT(self.delta_p, Each(0.0f));
  EXPECT_THAT(self.same_top, Each(1));
  const Positions measured =
      measure(reference_->model, hidden_states(reference_->model, suite), suite);
  EXPECT_EQ(measured.loss, self.loss);
  EXPECT_THAT(measured.kld, Each(0.0f));
  EXPECT_THAT(measured.same_top, Each(1));
}

TEST_F(ScoreTest, TheEmbeddedModelAgreesWithItself) {
  const auto file = gguf::File::open(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf");
  model::Model nano(file);
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  const Suite suite = load_suite(parse_suite("c=" SQ_SOURCE_DIR "/suites/convergence60.jsonl:4x64"),
                                 tokenizer, text::ChatFormat::from_metadata(file.metadata()));
  const Score s =
      summarize(compare(nano, hidden_states(nano, suite), nano, suite), nullptr, nullptr);
  EXPECT_EQ(s.n_tokens, 4 * 63);
  EXPECT_EQ(s.kld.mean, 0.0);
  EXPECT_EQ(s.kld_max, 0.0);
  EXPECT_EQ(s.top1_agreement.mean, 1.0);
  EXPECT_GT(s.loss.mean, 1.0);
  EXPECT_LT(s.loss.mean, 6.0);
}

TEST_F(ScoreTest, BatchesDoNotChangeTheResult) {
  const Suite suite = load("", "texts.jsonl");
  const Positions whole = scores(candidate_->model, suite);
  for (std::int64_t batch_tokens : {1, 20, 64, 100000}) {
    SCOPED_TRACE(batch_tokens);
    // sums of float32 in another order
    expect_near(scores(candidate_->model, suite, batch_tokens), whole, 2e-6);
  }
}

TEST_F(ScoreTest, ThreadsDoNotChangeTheResult) {
  for (const auto* protocol : {"documents", "3x8"}) {
    const Suite suite = load(protocol, "texts.jsonl");
    // several batches side by side; one batch on several threads
    for (std::int64_t batch_tokens : {16, 4096}) {
      SCOPED_TRACE(batch_tokens);
      model::set_threads(1);
      const Positions one = scores(candidate_->model, suite, batch_tokens);
      model::set_threads(2);
      expect_near(scores(candidate_->model, suite, batch_tokens), one, 1e-6);
    }
  }
}

TEST_F(ScoreTest, TellsItsProgressToTheEnd) {
  const Suite suite = load("", "texts.jsonl");
  std::vector<std::uint64_t> done;
  EvaluateOptions options;
  options.batch_tokens = 16;
  const auto listen = [&](const ProgressEvent& event) {
    EXPECT_EQ(event.total, static_cast<std::uint64_t>(suite.n_scored));
    done.push_back(event.done);
  };
  const auto hidden = hidden_states(reference_->model, suite, options, listen);
  EXPECT_EQ(done.back(), static_cast<std::uint64_t>(suite.n_scored));
  done.clear();
  compare(reference_->model, hidden, candidate_->model, suite, options, listen);
  ASSERT_GT(done.size(), 2u);
  EXPECT_EQ(done.front(), 0u);
  EXPECT_EQ(done.back(), static_cast<std::uint64_t>(suite.n_scored));
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(ScoreTest, RefusesAnotherVocabulary) {
  const auto larger =
      tiny(3, [](gguf::Metadata& metadata, std::vector<model::TinyTensor>& tensors) {
        std::vector<std::string> tokens;
        for (auto token : metadata.find("tokenizer.ggml.tokens")->strings())
          tokens.emplace_back(token);
        tokens.push_back("<one more>");
        metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
        metadata.set("tokenizer.ggml.token_type",
                     model::tiny::of_i32s(std::vector<std::int32_t>(tokens.size(), 1)));
        for (auto& tensor : tensors) {
          if (tensor.name != "token_embd.weight") continue;
          tensor.values.resize(tensor.values.size() + tensor.shape[0], 0.1f);
          ++tensor.shape[1];
        }
      });
  const Suite suite = load("", "texts.jsonl");
  const std::string message = refusal([&] { scores(larger->model, suite); });
  EXPECT_THAT(message,
              HasSubstr("the candidate's vocabulary has 321 entries, the reference's 320"));
  EXPECT_THAT(message, HasSubstr("tiny3.gguf"));
}

}  // namespace
}  // namespace spectralquant::evaluate
