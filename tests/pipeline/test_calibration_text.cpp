#include "pipeline/pipeline_fixture.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/general_text.h"

namespace spectralquant::pipeline {
namespace {

using ::testing::HasSubstr;

class LoadCalibrationTest : public PipelineTest {
 protected:
  CalibrationText load(const CalibrationSource& source, std::uint64_t seed = 0) {
    const gguf::File file = gguf::File::open(path("in.gguf"));
    model::Model model(file);
    return load_calibration(model, source, seed);
  }
};

TEST_F(LoadCalibrationTest, CutsFilesIntoWindows) {
  const CalibrationText text = load({{path("text.txt")}, 0, 32, 0});
  EXPECT_GT(text.windows.size(), 4u);
  for (const auto& window : text.windows) EXPECT_EQ(window.size(), 32u);
  EXPECT_EQ(text.description, "text.txt");
  EXPECT_EQ(load({{path("text.txt")}, 0, 32, 100}).windows.size(), 3u);  // no more than 100 tokens
}

TEST_F(LoadCalibrationTest, JoinsFilesAndOwnSamples) {
  const CalibrationText text = load({{path("text.txt")}, 64, 32, 64});
  EXPECT_EQ(text.windows.size(), 4u);
  EXPECT_EQ(text.description, "text.txt+self:64");
  // another seed, other samples
  EXPECT_NE(text.hash, load({{path("text.txt")}, 64, 32, 64}, 1).hash);
  EXPECT_EQ(text.hash, load({{path("text.txt")}, 64, 32, 64}).hash);
}

TEST_F(LoadCalibrationTest, RefusesNothingAndTooLittle) {
  EXPECT_THAT(refusal([&] { load({}); }), HasSubstr("no calibration text"));
  spew(path("short.txt"), "word");
  EXPECT_NE(refusal([&] { load({{path("short.txt")}, 0, 512, 0}); }), "");
  EXPECT_NE(refusal([&] { load({{path("absent.txt")}, 0, 512, 0}); }), "");
}

TEST_F(LoadCalibrationTest, TheGeneralTextComesWithTheProgram) {
  EXPECT_EQ(general_text(), slurp(SQ_SOURCE_DIR "/suites/calibration.jsonl"));
  CalibrationSource source;
  add_source(source, "general");
  add_source(source, path("text.txt"));
  source.window_tokens = 32;
  EXPECT_EQ(source_words(source), (std::vector<std::string>{"general", path("text.txt")}));
  const CalibrationText both = load(source);
  EXPECT_EQ(both.description, "general+text.txt");
  source.files.clear();
  EXPECT_LT(load(source).windows.size(), both.windows.size());
  EXPECT_GT(load(source).windows.size(), 2000u);
}

TEST_F(LoadCalibrationTest, IsChosenWhereNoneIsGiven) {
  const gguf::File file = gguf::File::open(path("in.gguf"));
  for (const char* device : {"cpu", "cuda:1"}) {  // a small model writes quickly anywhere
    CalibrationSource source;
    choose_default_text(source, file, device);
    EXPECT_EQ(source_words(source), (std::vector<std::string>{"general", "self:65536"}));
    EXPECT_EQ(source.max_tokens, 65536);
    source.max_tokens = 64;  // the user's word counts
    choose_default_text(source, file, device);
    EXPECT_EQ(source.max_tokens, 64);
  }
}

}  // namespace
}  // namespace spectralquant::pipeline
