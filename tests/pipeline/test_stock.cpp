// Against stock llama.cpp's own tools, found through LLAMA_CPP_BIN or PATH; skipped where there are
// none.
#include "pipeline/pipeline_fixture.h"
#include "spectralquant/gguf/diff.h"
#include "spectralquant/pipeline/calibration_text.h"

namespace spectralquant::pipeline {
namespace {

const std::string kNano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";

const std::vector<std::pair<gguf::Type, std::string>> kTypes = {
    {gguf::Type::Q4_K, "Q4_K_M"},   {gguf::Type::Q5_K, "Q5_K_M"}, {gguf::Type::Q6_K, "Q6_K"},
    {gguf::Type::Q2_K, "Q2_K"},     {gguf::Type::Q3_K, "Q3_K_M"}, {gguf::Type::IQ4_XS, "IQ4_XS"},
    {gguf::Type::IQ4_NL, "IQ4_NL"}, {gguf::Type::Q4_0, "Q4_0"},   {gguf::Type::Q5_0, "Q5_0"},
    {gguf::Type::Q8_0, "Q8_0"}};

class SlowStockTest : public PipelineTest {
 protected:
  /// Ours has the tensors and the types in the metadata of `llama-quantize --pure`.
  void expect_stock(const std::string& type, const std::string& options) {
    ASSERT_EQ(run("llama-quantize", "--pure " + options + " '" + kNano + "' '" +
                                        path("stock.gguf") + "' " + type + " 1"),
              0)
        << slurp(path("log"));
    EXPECT_THAT(differences(path("stock.gguf")), ::testing::IsEmpty());
    const gguf::File ours = gguf::File::open(path("out.gguf")),
                     stock = gguf::File::open(path("stock.gguf"));
    for (const char* key : {"general.file_type", "general.quantization_version"})
      EXPECT_EQ(ours.metadata().int_or(key, -1), stock.metadata().int_or(key, -2)) << key;
  }
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
  for (const auto& [type, name] : kTypes) {
    SCOPED_TRACE(name);
    QuantizeOptions o = options(Method::kPlain);
    o.input = kNano;
    o.plan.type = type;
    o.overwrite = true;
    quantize_file(o);
    expect_stock(name, "");
  }
}

TEST_F(SlowStockTest, OurImatrixInLlamaQuantizeIsOurImatrixRounding) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  const gguf::File file = gguf::File::open(kNano);
  model::Model model(file);
  const CalibrationText text = load_calibration(model, options(Method::kImatrix).calibration, 0);
  calibrate::Signals signals = calibrate::collect(model, text.windows);
  signals.description = text.description;
  calibrate::save_imatrix(signals, path("im.gguf"), 64, false);
  for (const auto& [type, name] : kTypes) {
    SCOPED_TRACE(name);
    QuantizeOptions o = options(Method::kImatrix);
    o.input = kNano;
    o.plan.type = type;
    o.overwrite = true;
    quantize_file(o);
    expect_stock(name, "--imatrix '" + path("im.gguf") + "'");
    EXPECT_THAT(slurp(path("log")), ::testing::HasSubstr("text.txt"));
  }
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
