// Against stock llama.cpp's own tools, found through LLAMA_CPP_BIN or PATH; skipped where there are
// none.
#include "pipeline/pipeline_fixture.h"
#include "spectralquant/gguf/diff.h"
#include "spectralquant/pipeline/calibration_text.h"

namespace spectralquant::pipeline {
namespace {

const std::string kNano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";

class SlowStockTest : public PipelineTest {
 protected:
  int run(const std::string& tool, const std::string& arguments) {
    return std::system(("OMP_WAIT_POLICY=passive '" + find_tool(tool) + "' " + arguments + " > '" +
                        path("log") + "' 2>&1")
                           .c_str());
  }
  /// Tensors of ours that differ from stock's.
  std::vector<std::string> differences(const std::string& stock) {
    std::vector<std::string> names;
    for (const auto& tensor :
         gguf::compare(gguf::File::open(path("out.gguf")), gguf::File::open(stock)).tensors)
      names.push_back(tensor.name);
    return names;
  }
};

TEST_F(SlowStockTest, PlainRoundingIsLlamaQuantizePure) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  QuantizeOptions o = options(Method::kPlain);
  o.input = kNano;
  quantize_file(o);
  ASSERT_EQ(run("llama-quantize", "--pure '" + kNano + "' '" + path("stock.gguf") + "' Q4_K_M 1"),
            0)
      << slurp(path("log"));
  EXPECT_THAT(differences(path("stock.gguf")), ::testing::IsEmpty());
}

TEST_F(SlowStockTest, OurImatrixInLlamaQuantizeIsOurImatrixRounding) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  QuantizeOptions o = options(Method::kImatrix);
  o.input = kNano;
  quantize_file(o);
  const gguf::File file = gguf::File::open(kNano);
  model::Model model(file);
  const CalibrationText text = load_calibration(model, o.calibration, 0);
  calibrate::Signals signals = calibrate::collect(model, text.windows);
  signals.description = text.description;
  calibrate::save_imatrix(signals, path("im.gguf"), 64, false);
  ASSERT_EQ(run("llama-quantize", "--pure --imatrix '" + path("im.gguf") + "' '" + kNano + "' '" +
                                      path("stock.gguf") + "' Q4_K_M 1"),
            0)
      << slurp(path("log"));
  EXPECT_THAT(slurp(path("log")), ::testing::HasSubstr("text.txt"));
  EXPECT_THAT(differences(path("stock.gguf")), ::testing::IsEmpty());
}

TEST_F(SlowStockTest, AStockImatrixGivesTheSameBytesInBoth) {
  if (find_tool("llama-imatrix").empty())
    GTEST_SKIP() << "llama-imatrix not found: put it on PATH or set LLAMA_CPP_BIN";
  ASSERT_EQ(run("llama-imatrix", "-m '" + kNano + "' -f '" + path("text.txt") +
                                     "' -c 64 -t 1 --no-ppl -o '" + path("im.gguf") + "'"),
            0)
      << slurp(path("log"));
  ASSERT_EQ(run("llama-quantize", "--pure --imatrix '" + path("im.gguf") + "' '" + kNano + "' '" +
                                      path("stock.gguf") + "' Q4_K_M 1"),
            0)
      << slurp(path("log"));
  QuantizeOptions o = options(Method::kImatrix);
  o.input = kNano;
  o.calibration = {};
  o.signals_file = path("im.gguf");  // without the tied head, which both then round plainly
  quantize_file(o);
  EXPECT_THAT(differences(path("stock.gguf")), ::testing::IsEmpty());
}

}  // namespace
}  // namespace spectralquant::pipeline
