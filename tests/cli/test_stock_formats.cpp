// Files of stock llama-quantize in the formats that users compare with, through `inspect` and
// `eval`; skipped without the tool.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli_fixture.h"
#include "stock_tool.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;

struct Made {
  const char* name;  ///< of llama-quantize
  const char* type;  ///< that most of its matrices get
  bool pure;
};

class SlowStockFormatsTest : public testing::Test {
 protected:
  void quantize(const Made& made) {
    const std::string command = "OMP_WAIT_POLICY=passive '" + find_tool("llama-quantize") + "' " +
                                (made.pure ? "--pure " : "") + "--imatrix '" +
                                path("imatrix.gguf") + "' '" + kModel + "' '" + path(made.name) +
                                ".gguf' " + made.name + " 1 > '" + path("log") + "' 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << read_file(path("log"));
  }
  std::string path(const std::string& name) const { return (folder / name).string(); }

  TemporaryFolder folder;
};

TEST_F(SlowStockFormatsTest, MixesOfFewBitsAreInspectedAndScored) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  const Result calibrated =
      run({"calibrate", kModel, "--imatrix", path("imatrix.gguf"), "--calibration",
           SQ_SOURCE_DIR "/suites/calibration.jsonl", "--max-tokens", "8192", "-q"});
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;

  // Fewer bits, farther from the original: the order of these files on any text, with wide gaps.
  // IQ3_XXS mixes in IQ2_S, IQ3_S and Q5_K.
  const Made all[] = {{"MXFP4_MOE", "MXFP4", true},
                      {"IQ3_XXS", "IQ3_XXS", false},
                      {"IQ2_XXS", "IQ2_XXS", false},
                      {"TQ2_0", "TQ2_0", false}};
  std::vector<std::string> command = {"eval", "--json",      "-q",  "--bootstrap",
                                      "0",    "--reference", kModel};
  for (const Made& made : all) {
    quantize(made);
    const Result r = run({"inspect", "--json", path(made.name) + ".gguf"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    EXPECT_GT(json::parse(r.out)["types"][made.type]["tensors"], 20) << r.out;
    command.push_back(path(made.name) + ".gguf");
  }
  command.insert(command.end(), {"--suite", "s=" SQ_SOURCE_DIR "/suites/heldout120.jsonl:8x256"});
  const Result scored = run(command);
  ASSERT_EQ(scored.exit_code, 0) << scored.err;
  const json models = json::parse(scored.out)["models"];
  ASSERT_EQ(models.size(), 1 + std::size(all)) << scored.out;
  double before = 0;
  for (const Made& made : all) {
    const auto row = std::find_if(models.begin(), models.end(),
                                  [&](const json& model) { return model["name"] == made.name; });
    ASSERT_NE(row, models.end()) << made.name;
    const double kld = (*row)["scores"]["s"]["kld"]["mean"];
    EXPECT_GT(kld, 1.2 * before) << made.name;
    before = kld;
  }
  EXPECT_TRUE(std::isfinite(before));
}

}  // namespace
}  // namespace spectralquant::test
