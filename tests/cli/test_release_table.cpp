// bench/release_table.sh on the embedded model, without stock llama.cpp's tools and with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "process.h"
#include "stock_tool.h"

namespace spectralquant::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class SlowReleaseTableTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(folder / "models");
    std::filesystem::create_symlink(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf",
                                    folder / "models" / "nano-bf16.gguf");
    for (const auto* name : {"convergence60.jsonl", "heldout120.jsonl"})
      write_file(folder / "models" / name, first_documents(name, 1));
    write_file(folder / "calibration.jsonl", first_documents("calibration.jsonl", 8));
  }
  static std::string first_documents(const std::string& suite, int n) {
    const std::string whole = read_file(std::filesystem::path(SQ_SOURCE_DIR "/suites") / suite);
    std::size_t end = 0;
    for (int i = 0; i < n; ++i) end = whole.find('\n', end) + 1;
    return whole.substr(0, end);
  }
  /// Exit code; output and messages go to `out` and `err`.
  int run_script(const std::string& models, const std::string& path) {
    const auto quoted = [](const std::string& text) { return "'" + text + "'"; };
    const int status = std::system(
        ("PATH=" + quoted(path) + " SPECTRALQUANT=" + quoted(SQ_BINARY) +
         " OUT=" + quoted(folder / "out") + " CALIBRATION=" + quoted(folder / "calibration.jsonl") +
         " " + quoted(SQ_SOURCE_DIR "/bench/release_table.sh") + " " + quoted(models) +
         " --effort fast > " + quoted(folder / "stdout") + " 2> " + quoted(folder / "stderr"))
            .c_str());
    out = read_file(folder / "stdout");
    err = read_file(folder / "stderr");
    return WEXITSTATUS(status);
  }

  TemporaryFolder folder;
  std::string out, err;
};

TEST_F(SlowReleaseTableTest, WithoutStockToolsPureAndOursAreSetBesideThePublishedFigures) {
  ASSERT_EQ(run_script(folder / "models", "/usr/bin:/bin"), 0) << err;
  EXPECT_THAT(out, HasSubstr("| pure Q4_K_M | 4.57 |"));
  EXPECT_THAT(out, HasSubstr("| SpectralQuant | 4.57 |"));
  EXPECT_THAT(out, HasSubstr("2.7404"));  // published, pure Q4_K_M
  EXPECT_THAT(out, Not(HasSubstr("| Q4_K_S |")));
  EXPECT_THAT(err, HasSubstr("Q4_K_S: looked for *Q4_K_S*.gguf"));
}

TEST_F(SlowReleaseTableTest, WithStockToolsMissingMixesAreMade) {
  const std::string tool = find_tool("llama-quantize");
  if (tool.empty()) GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  ASSERT_EQ(run_script(folder / "models",
                       std::filesystem::path(tool).parent_path().string() + ":/usr/bin:/bin"),
            0)
      << err;
  for (const auto* label :
       {"IQ4_NL", "Q4_K_M", "Q4_K_S", "IQ4_XS", "pure Q4_K_M", "pure, imatrix", "SpectralQuant"})
    EXPECT_THAT(out, HasSubstr(std::string("| ") + label + " | ")) << err;
}

TEST_F(SlowReleaseTableTest, AFolderWithoutTheOriginalIsRefused) {
  std::filesystem::create_directory(folder / "empty");
  EXPECT_EQ(run_script(folder / "empty", "/usr/bin:/bin"), 3);
  EXPECT_THAT(err, HasSubstr("looked for *BF16*.gguf"));
  EXPECT_EQ(run_script(folder / "nowhere", "/usr/bin:/bin"), 2);
}

}  // namespace
}  // namespace spectralquant::test
