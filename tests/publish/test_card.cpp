// The model card of a file that quantize wrote.
#include "pipeline/pipeline_fixture.h"
#include "sample_results.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/publish/card.h"

namespace spectralquant::publish {
namespace {

using testing::HasSubstr;
using testing::Not;

class Card : public pipeline::PipelineTest {
 protected:
  gguf::File quantized(pipeline::Method method = pipeline::Method::kPlain) {
    pipeline::quantize_file(options(method));
    return gguf::File::open(path("out.gguf"));
  }

  json results_for(const gguf::File& file) const {
    json results = sample_results();
    results["models"][2]["hash"] = file.hash();
    results["models"][2]["path"] = file.path();
    return results;
  }
};

TEST_F(Card, FiguresAreThoseOfTheFileAndTheResults) {
  const auto file = quantized();
  const auto card = to_card(file, source(results_for(file)));
  EXPECT_EQ(card.rfind("---\n", 0), 0u);
  EXPECT_THAT(card, HasSubstr("\n- q4_k_m\n"));
  EXPECT_THAT(card, HasSubstr("quantized_by: \"SpectralQuant\""));
  EXPECT_THAT(card, HasSubstr(file.hash()));
  EXPECT_THAT(
      card,
      HasSubstr("KL divergence to the original 0.0200 nats a token (95 %: 0.0180 to 0.0220)"));
  // the table
  EXPECT_THAT(card, HasSubstr("| **ours** | 4.57 | 2.61 | 0.0200 | 0.160 | 90.0 % | 3.0200 |"));
  EXPECT_THAT(card, HasSubstr("4.50 bits a weight"));
  EXPECT_THAT(card, HasSubstr("spectralquant quantize original.gguf -o out.gguf --method plain"));
  EXPECT_THAT(card, HasSubstr("--suite held=held.jsonl"));
  EXPECT_THAT(card, HasSubstr("FROM ./out.gguf"));
  EXPECT_THAT(card, HasSubstr("| `spectralquant.method` | `plain` |"));
  EXPECT_THAT(card, Not(HasSubstr("/home/someone")));
  EXPECT_THAT(card, Not(HasSubstr(path("")))) << "a card names no folders";
}

TEST_F(Card, NamesCalibrationSourcesAndTheirShare) {
  auto options = this->options(pipeline::Method::kImatrix);
  options.calibration.self_tokens = 64;
  pipeline::quantize_file(options);
  const auto file = gguf::File::open(path("out.gguf"));
  const auto tokens = file.metadata().require_int("spectralquant.calibration_tokens");
  const auto card = to_card(file, source(results_for(file)));
  EXPECT_THAT(card, HasSubstr("| text.txt | " + std::to_string(tokens - 64) + " |"));
  EXPECT_THAT(card, HasSubstr("| text the model wrote itself | 64 |"));
  EXPECT_THAT(card, HasSubstr("--method imatrix --calibration text.txt self:64 --window 64"));
}

TEST_F(Card, HeaderTakesWhatTheMetadataKnow) {
  auto file = quantized();
  const auto unknown = to_card(file, source(results_for(file)));
  EXPECT_THAT(unknown, HasSubstr("# not in the file's metadata: license"));
  EXPECT_THAT(unknown, HasSubstr("# not in the file's metadata: base_model"));
  const auto given = to_card(file, source(results_for(file)),
                             {.base_model = "someone/model", .quantized_by = "me: \"x\""});
  EXPECT_THAT(given, HasSubstr("base_model: \"someone/model\"\n"));
  EXPECT_THAT(given, HasSubstr("quantized_by: \"me: \\\"x\\\"\"\n"));
}

TEST_F(Card, NamesAreNoMarkup) {
  const auto file = quantized();
  json results = results_for(file);
  results["models"][1]["name"] = "a|b_c *d* <img> _e";
  EXPECT_THAT(to_card(file, source(results)),
              HasSubstr("| a\\|b_c \\*d\\* \\<img\\> \\_e | 4.57 |"));
}

TEST_F(Card, ResultsWithoutThisFileAreRefused) {
  const auto file = quantized();
  const auto error = error_of([&] { to_card(file, source(sample_results())); });
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_THAT(error.problem(), HasSubstr(file.hash()));
  EXPECT_THAT(error.fix(), HasSubstr("spectralquant eval"));
}

TEST_F(Card, AFileOfAnotherToolIsRefused) {
  const auto file = gguf::File::open(path("in.gguf"));
  const auto error = error_of([&] { to_card(file, source(results_for(file))); });
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_THAT(error.problem(), HasSubstr("does not say how it was made"));
}

}  // namespace
}  // namespace spectralquant::publish
