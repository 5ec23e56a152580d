// The model card of a file that quantize wrote.
#include <sstream>

#include "bash_words.h"
#include "pipeline/pipeline_fixture.h"
#include "sample_results.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/writer.h"
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

/// The lines of all fences that begin with ```sh.
std::string commands_of(const std::string& card) {
  std::string out;
  for (std::size_t begin = 0; (begin = card.find("\n```sh\n", begin)) != std::string::npos;) {
    const std::size_t first = begin + 7, end = card.find("\n```\n", first);
    out += card.substr(first, end - first) + "\n";
    begin = end;
  }
  return out;
}

TEST_F(Card, CommandsArriveAsTheyShouldWhateverTheNames) {
  const std::string text = path("it's $(touch owned) 'text'.txt");
  std::filesystem::rename(path("text.txt"), text);
  auto options = this->options(pipeline::Method::kImatrix);
  options.calibration.files = {text};
  const std::string name = "-Bob's $5 `model`; touch owned\n(v2).gguf";
  options.output = path(name);
  pipeline::quantize_file(options);
  const auto file = gguf::File::open(options.output);
  json results = results_for(file);
  results["models"][0]["path"] = "/x/the \"original\" $HOME.gguf";
  results["models"][1]["path"] = "/x/--help.gguf";
  results["baseline"] = "-plain & simple";
  results["suites"][0]["name"] = "held; rm -rf x";
  results["models"][2]["scores"] = {{"held; rm -rf x", score(0.02)}};
  results["suites"][0]["file"] = "/x/held out\x1b[2J.jsonl";
  const auto commands = test::bash_words(commands_of(to_card(file, source(results))));
  ASSERT_EQ(commands.size(), 7u);
  const std::string model = "./" + name;
  EXPECT_EQ(commands[0][2], model);
  EXPECT_EQ(commands[1], (test::Words{"llama-server", "-m", model, "--port", "8080"}));
  EXPECT_EQ(commands[2],
            (test::Words{"ollama", "create", "Bob-s-5-model-touch-owned-v2", "-f", "Modelfile"}));
  EXPECT_EQ(commands[3], (test::Words{"ollama", "run", "Bob-s-5-model-touch-owned-v2"}));
  EXPECT_EQ(commands[4], (test::Words{"lms", "import", model}));
  EXPECT_EQ(commands[5],
            (test::Words{"spectralquant", "quantize", "the \"original\" $HOME.gguf", "-o", model,
                         "--method", "imatrix", "--calibration", "it's $(touch owned) 'text'.txt",
                         "--window", "64", "--threads", "1"}));
  EXPECT_EQ(commands[6],
            (test::Words{"spectralquant", "eval", "--reference", "the \"original\" $HOME.gguf",
                         "./--help.gguf", model, "--baseline=-plain & simple", "--suite",
                         "held; rm -rf x=held out\x1b[2J.jsonl"}));
}

TEST_F(Card, ValuesFromFilesStayText) {
  const std::string hostile =
      "nice\x1b]0;owned\x07\nlicense: mit\n---\n# <script>alert(1)</script> ```sh\n| a | b |\u202e";
  const auto quantized_file = quantized();
  gguf::Metadata metadata = quantized_file.metadata();
  for (const char* key : {"general.name", "general.license", "general.license.name", "general.url",
                          "spectralquant.version", "spectralquant.method"})
    metadata.set(key, gguf::Value::of_string(hostile));
  metadata.set("general.languages", gguf::Value::of_strings({"en\n- x", "\x1b[31m"}));
  metadata.set("spectralquant.evil\x1b|key", gguf::Value::of_string(hostile));
  std::vector<gguf::TensorPlan> plan;
  for (const auto& t : quantized_file.tensors())
    plan.push_back({t.name, t.type, t.n_dims, t.shape});
  gguf::Writer writer(path("hostile.gguf"), metadata, plan);
  for (std::size_t i = 0; i < plan.size(); ++i)
    writer.write(i, 0, quantized_file.tensors()[i].data, quantized_file.tensors()[i].size_bytes);
  writer.commit();
  const auto file = gguf::File::open(path("hostile.gguf"));
  json results = results_for(file);
  for (auto& model : results["models"]) model["name"] = hostile + model["name"].get<std::string>();
  const auto card = to_card(file, source(results));
  EXPECT_EQ(printable(card, Breaks::kKept), card);
  EXPECT_THAT(card, Not(HasSubstr("\nlicense: mit\n")));
  const auto body = card.substr(card.find("\n---\n", 1));
  EXPECT_THAT(body, Not(HasSubstr(" <script>"))) << "a backslash stands before it";
  EXPECT_EQ(card.find("\n---\n", 1), card.rfind("\n---\n")) << "the header ends once";
  // every line of a table has as many cells as its head
  std::istringstream lines(card);
  std::size_t n_cells = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("|")) {
      n_cells = 0;
      continue;
    }
    std::size_t bars = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '\\')
        ++i;
      else
        bars += line[i] == '|';
    }
    if (n_cells == 0) n_cells = bars;
    EXPECT_EQ(bars, n_cells) << line;
  }
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
