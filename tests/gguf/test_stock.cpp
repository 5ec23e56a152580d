// Against stock llama.cpp's own tools, found through LLAMA_CPP_BIN or PATH; skipped where there are none.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/diff.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::gguf {
namespace {

const std::string kNano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";

std::string find_tool(const std::string& name) {
  std::string folders;
  if (const char* own = std::getenv("LLAMA_CPP_BIN")) folders = std::string(own) + ":";
  if (const char* path = std::getenv("PATH")) folders += path;
  std::istringstream list(folders);
  for (std::string folder; std::getline(list, folder, ':');)
    if (const std::string tool = folder + "/" + name; !folder.empty() && ::access(tool.c_str(), X_OK) == 0) return tool;
  return "";
}

class StockTest : public test::FolderTest {
 protected:
  /// Exit code of a stock tool; its output goes to path("log").
  int run(const std::string& tool, const std::string& arguments) {
    const std::string found = find_tool(tool);
    if (found.empty()) return -1;
    return std::system(("OMP_WAIT_POLICY=passive '" + found + "' " + arguments + " > '" + path("log") + "' 2>&1").c_str());
  }
};

TEST_F(StockTest, PureQuantizationIsStrictTensorForTensor) {
  if (find_tool("llama-quantize").empty()) GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  ASSERT_EQ(run("llama-quantize", "--pure '" + kNano + "' '" + path("q.gguf") + "' Q4_K_M 1"), 0) << slurp(path("log"));
  const File before = File::open(kNano), after = File::open(path("q.gguf"));
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  for (const Tensor& tensor : before.tensors())
    EXPECT_EQ(is_matrix_to_quantize("qwen35", tensor), after.require(tensor.name).type == Type::Q4_K) << tensor.name;
  const Inventory inventory = take_inventory(after);
  EXPECT_TRUE(inventory.strict);
  EXPECT_DOUBLE_EQ(inventory.matrix_bpw, 4.5);
  // "quant size = 2.54 MiB (4.57 BPW)"
  EXPECT_THAT(slurp(path("log")), testing::HasSubstr(fmt::format("({:.2f} BPW)", inventory.file_bpw)));
}

TEST_F(StockTest, SplitsAreTheWholeFile) {
  if (find_tool("llama-gguf-split").empty()) GTEST_SKIP() << "llama-gguf-split not found: put it on PATH or set LLAMA_CPP_BIN";
  for (const std::string options : {"", "--no-tensor-first-split "}) {
    const std::string prefix = path(options.empty() ? "plain" : "bare");
    ASSERT_EQ(run("llama-gguf-split", "--split " + options + "--split-max-tensors 20 '" + kNano + "' '" + prefix + "'"), 0) << slurp(path("log"));
    std::string first;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().string().starts_with(prefix + "-00001-of-")) first = entry.path().string();
    ASSERT_FALSE(first.empty());
    const File split = File::open(first);
    EXPECT_GT(split.paths().size(), 2u);
    const Difference difference = compare(File::open(kNano), split);
    EXPECT_TRUE(difference.tensors.empty());
    for (const KeyDifference& key : difference.keys) EXPECT_TRUE(key.key.starts_with("split.")) << key.key;
  }
}

TEST_F(StockTest, ReadsWhatTheWriterWrote) {
  if (find_tool("llama-quantize").empty()) GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  const File nano = File::open(kNano);
  std::vector<TensorPlan> plans;
  for (const Tensor& t : nano.tensors()) plans.push_back({t.name, t.type, t.n_dims, t.shape});
  Metadata metadata = nano.metadata();
  metadata.set("spectralquant.test", Value::of_strings({"a", ""}));
  Writer writer(path("ours.gguf"), metadata, plans);
  for (std::size_t i = 0; i < plans.size(); ++i) writer.write(i, 0, nano.tensors()[i].data, nano.tensors()[i].size_bytes);
  writer.commit();
  EXPECT_EQ(run("llama-quantize", "--dry-run --pure '" + path("ours.gguf") + "' Q4_K_M 1"), 0) << slurp(path("log"));
}

}  // namespace
}  // namespace spectralquant::gguf
