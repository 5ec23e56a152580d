#include "pipeline/pipeline_fixture.h"
#include "spectralquant/pipeline/calibration_text.h"

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

}  // namespace
}  // namespace spectralquant::pipeline
