// Against stock llama-perplexity, found through LLAMA_CPP_BIN or PATH; skipped where there is none.
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
  int run(const std::string& arguments) {
    const auto tool = pipeline::find_tool("llama-perplexity");
    return std::system(("OMP_WAIT_POLICY=passive '" + tool +
                        "' -c 512 -t 1 --kl-divergence-base '" + path("logits") + "' " + arguments +
                        " > '" + path("log") + "' 2>&1")
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
  if (pipeline::find_tool("llama-perplexity").empty())
    GTEST_SKIP() << "llama-perplexity not found: put it on PATH or set LLAMA_CPP_BIN";
  const auto file = gguf::File::open(kNano);
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  const auto chat = text::ChatFormat::from_metadata(file.metadata());
  std::string text;
  for (const auto& document :
       text::load_corpus({SQ_SOURCE_DIR "/suites/heldout120.jsonl"}, chat).documents) {
    // which llama-perplexity reads as letters
    const bool has_markers = document.text.find("<|") != std::string::npos;
    if (!has_markers && text.size() < kTextBytes) text += document.text + "\n\n";
  }
  spew(path("text.txt"), text);

  pipeline::QuantizeOptions options;
  options.input = kNano;
  options.output = path("plain.gguf");
  options.method = pipeline::Method::kPlain;
  pipeline::quantize_file(options);
  const auto plain_file = gguf::File::open(options.output);
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

}  // namespace
}  // namespace spectralquant::evaluate
