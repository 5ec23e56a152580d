// Against stock llama-perplexity, found through LLAMA_CPP_BIN or PATH; skipped where there is none.
#include <fmt/format.h>

#include <cmath>
#include <regex>

#include "evaluate_fixture.h"

namespace spectralquant::evaluate {
namespace {

const std::string kNano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";
// some forty windows: llama-perplexity writes 2 MB of logits for each
constexpr std::size_t kTextBytes = 60'000;

class SlowStockTest : public calibrate::FolderTest {
 protected:
  void SetUp() override {
    if (pipeline::find_tool("llama-perplexity").empty())
      GTEST_SKIP() << "llama-perplexity not found: put it on PATH or set LLAMA_CPP_BIN";
  }
  /// text.txt: some forty windows of documents without special tokens.
  void write_text() const {
    const auto chat = text::ChatFormat::from_metadata(gguf::File::open(kNano).metadata());
    std::string text;
    for (const auto& document :
         text::load_corpus({SQ_SOURCE_DIR "/suites/heldout120.jsonl"}, chat).documents) {
      const bool has_markers = document.text.find("<|") != std::string::npos;
      if (!has_markers && text.size() < kTextBytes) text += document.text + "\n\n";
    }
    spew(path("text.txt"), text);
  }
  void write_plain() const {
    pipeline::QuantizeOptions options;
    options.input = kNano;
    options.output = path("plain.gguf");
    options.method = pipeline::Method::kPlain;
    pipeline::quantize_file(options);
  }
  int run(const std::string& arguments) {
    const auto tool = pipeline::find_tool("llama-perplexity");
    // Repacked Q4_K gives nonsense on some processors (seen with AMX: perplexity 15,000, not 33).
    return std::system(("OMP_WAIT_POLICY=passive '" + tool +
                        "' -c 512 -t 1 --no-repack --kl-divergence-base '" + path("logits") + "' " +
                        arguments + " > '" + path("log") + "' 2>&1")
                           .c_str());
  }
  /// The number behind a label in what the tool printed.
  double printed(const std::string& label) const {
    const std::string log = slurp(path("log"));
    std::smatch match;
    const bool found = std::regex_search(log, match, std::regex(label + R"(\s*[:=]\s*([0-9.]+))"));
    EXPECT_TRUE(found) << label << " is not in:\n" << log;
    return found ? std::stod(match[1]) : 0;
  }
};

TEST_F(SlowStockTest, C512IsLlamaPerplexity) {
  write_text();
  write_plain();
  const auto file = gguf::File::open(kNano);
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  const auto chat = text::ChatFormat::from_metadata(file.metadata());
  const auto plain_file = gguf::File::open(path("plain.gguf"));
  model::Model reference(file), plain(plain_file);
  const Suite suite =
      load_suite(parse_suite("held=" + path("text.txt") + ":c512"), tokenizer, chat);
  const auto hidden = hidden_states(reference, suite);
  const Score of_reference = summarize(measure(reference, hidden, suite), nullptr, nullptr);
  const Score score = summarize(compare(reference, hidden, plain, suite), nullptr, nullptr);

  ASSERT_EQ(run("-m '" + kNano + "' -f '" + path("text.txt") + "'"), 0) << slurp(path("log"));
  const double reference_loss = std::log(printed("Final estimate: PPL"));
  EXPECT_NEAR(of_reference.loss.mean, reference_loss, 0.002 * reference_loss);

  ASSERT_EQ(run("-m '" + path("plain.gguf") + "' --kl-divergence"), 0) << slurp(path("log"));
  const double loss = std::log(printed(R"(Mean PPL\(Q\))"));
  EXPECT_NEAR(score.loss.mean, loss, 0.002 * loss);
  EXPECT_NEAR(score.kld.mean, printed("Mean +KLD"), 0.0015);
  EXPECT_NEAR(100 * score.top1_agreement.mean, printed("Same top p"), 1.0);
  EXPECT_NEAR(100 * score.rms_delta_p, printed("RMS Δp"), 0.3);
  std::printf(
      "loss %.4f (stock %.4f), KLD %.5f (stock %.5f), same top %.2f %% (stock %.2f %%), %d "
      "windows\n",
      score.loss.mean, loss, score.kld.mean, printed("Mean +KLD"), 100 * score.top1_agreement.mean,
      printed("Same top p"), static_cast<int>(suite.n_units));
}

TEST_F(SlowStockTest, SpecialTokensInPlainTextAreReadAlike) {
  std::string text;
  for (int i = 0; i < 160; ++i)
    text += fmt::format(
        "<|im_start|>user\nWhere does the river {} run?<|im_end|>\n<|im_start|>assistant\nPast the "
        "old mill, to the sea.<|im_end|>\n",
        i);
  spew(path("text.txt"), text);
  const auto file = gguf::File::open(kNano);
  const Suite suite = load_suite(parse_suite("chat=" + path("text.txt") + ":c512"),
                                 text::Tokenizer::from_metadata(file.metadata()),
                                 text::ChatFormat::from_metadata(file.metadata()));
  model::Model model(file);
  const Score score =
      summarize(measure(model, hidden_states(model, suite), suite), nullptr, nullptr);
  ASSERT_EQ(run("-m '" + kNano + "' -f '" + path("text.txt") + "'"), 0) << slurp(path("log"));
  const double loss = std::log(printed("Final estimate: PPL"));
  EXPECT_NEAR(score.loss.mean, loss, 0.002 * loss);
  EXPECT_EQ(StoredLogits::open(path("logits")).n_windows(), suite.n_units);
  std::printf("loss %.4f (stock %.4f), %d windows\n", score.loss.mean, loss,
              static_cast<int>(suite.n_units));
}

/// Files of F32 only, which llama.cpp multiplies in float32 as eval does: what then differs is
/// eval's reading of the stored predictions.
TEST_F(SlowStockTest, StoredPredictionsGiveLlamaPerplexitysFigures) {
  const auto quantize = pipeline::find_tool("llama-quantize");
  if (quantize.empty()) GTEST_SKIP() << "llama-quantize not found";
  write_text();
  write_plain();
  for (const auto& [from, to] :
       {std::pair{kNano, path("original.gguf")}, {path("plain.gguf"), path("candidate.gguf")}})
    ASSERT_EQ(std::system(fmt::format("'{}' --allow-requantize '{}' '{}' F32 >'{}' 2>&1", quantize,
                                      from, to, path("log"))
                              .c_str()),
              0)
        << slurp(path("log"));
  ASSERT_EQ(run("-m '" + path("original.gguf") + "' -f '" + path("text.txt") + "'"), 0);
  ASSERT_EQ(run("-m '" + path("candidate.gguf") + "' --kl-divergence"), 0) << slurp(path("log"));
  const auto stored = StoredLogits::open(path("logits"));
  const auto file = gguf::File::open(path("candidate.gguf"));
  model::Model candidate(file);
  const Suite suite = suite_of(stored, text::Tokenizer::from_metadata(file.metadata()));
  const Score original = summarize(measure(stored, suite), nullptr, nullptr),
              score = summarize(compare(stored, candidate, suite), nullptr, nullptr);
  EXPECT_NEAR(original.loss.mean, std::log(printed(R"(Mean PPL\(base\))")), 2e-6);
  EXPECT_NEAR(score.loss.mean, std::log(printed(R"(Mean PPL\(Q\))")), 5e-5);
  EXPECT_NEAR(score.kld.mean, printed("Mean +KLD"), 5e-5);
  EXPECT_NEAR(score.kld_p99, printed("99.0%   KLD"), 1e-3);
  EXPECT_NEAR(100 * score.top1_agreement.mean, printed("Same top p"), 0.05);
  EXPECT_NEAR(100 * score.rms_delta_p, printed("RMS Δp"), 0.01);
  std::printf("KLD %.6f (stock %.6f), same top %.3f %% (stock %.3f %%)\n", score.kld.mean,
              printed("Mean +KLD"), 100 * score.top1_agreement.mean, printed("Same top p"));
}

}  // namespace
}  // namespace spectralquant::evaluate
