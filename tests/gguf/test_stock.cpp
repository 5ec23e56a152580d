// Against stock llama.cpp's own tools, found through LLAMA_CPP_BIN or PATH; skipped where there are
// none.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/diff.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/gguf/writer.h"
#include "stock_tool.h"

namespace spectralquant::gguf {
namespace {

using spectralquant::test::find_tool;

const std::string kNano = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";

class StockTest : public test::FolderTest {
 protected:
  /// Exit code of a stock tool; its output goes to path("log").
  int run(const std::string& tool, const std::string& arguments) {
    const std::string found = find_tool(tool);
    if (found.empty()) return -1;
    return std::system(
        ("OMP_WAIT_POLICY=passive '" + found + "' " + arguments + " > '" + path("log") + "' 2>&1")
            .c_str());
  }
};

TEST_F(StockTest, PureQuantizationIsStrictTensorForTensor) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  ASSERT_EQ(run("llama-quantize", "--pure '" + kNano + "' '" + path("q.gguf") + "' Q4_K_M 1"), 0)
      << slurp(path("log"));
  const File before = File::open(kNano), after = File::open(path("q.gguf"));
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  for (const Tensor& tensor : before.tensors())
    EXPECT_EQ(is_matrix_to_quantize("qwen35", tensor),
              after.require(tensor.name).type == Type::Q4_K)
        << tensor.name;
  const Inventory inventory = take_inventory(after);
  EXPECT_TRUE(inventory.strict);
  EXPECT_DOUBLE_EQ(inventory.matrix_bpw, 4.5);
  // "quant size = 2.54 MiB (4.57 BPW)"
  EXPECT_THAT(slurp(path("log")),
              testing::HasSubstr(fmt::format("({:.2f} BPW)", inventory.file_bpw)));
}

/// Random bytes, block after block, of those that stock takes for weights: it refuses scales that
/// are infinite or NaN.
std::vector<std::byte> random_blocks(Type type, std::uint64_t n_values, std::mt19937& random) {
  const TypeTraits layout = traits(type);
  std::vector<std::byte> bytes(n_values / layout.block_values * layout.block_bytes);
  std::vector<float> values(layout.block_values);
  const auto is_valid = [&](const std::byte* block) {
    // NaN in E8M0, though decoders make a number of it
    if (type == Type::MXFP4 && block[0] == std::byte{0xff}) return false;
    find_decoder(type)(block, layout.block_values, values.data());
    return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  };
  for (std::size_t at = 0; at < bytes.size(); at += layout.block_bytes) {
    do {
      for (std::size_t i = 0; i < layout.block_bytes; ++i)
        bytes[at + i] = static_cast<std::byte>(random() >> 24);
    } while (!is_valid(bytes.data() + at));
  }
  return bytes;
}

TEST_F(StockTest, DecodesRandomBlocksOfEveryTypeToTheSameBits) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  constexpr std::uint64_t kCols = 256, kRows = 2048;
  std::vector<TensorPlan> plans;
  for (std::uint32_t number = 0; number < 64; ++number)
    if (const auto layout = find_traits(number);
        layout && layout->decodable && number != static_cast<std::uint32_t>(Type::F32))
      plans.push_back({fmt::format("blk.{}.ffn_up.weight", number),
                       static_cast<Type>(number),
                       2,
                       {kCols, kRows, 1, 1}});
  EXPECT_EQ(plans.size(), 27u);
  std::mt19937 random(20);
  std::vector<std::vector<std::byte>> blocks;
  Writer writer(path("random.gguf"), File::open(kNano).metadata(), plans);
  for (std::size_t i = 0; i < plans.size(); ++i) {
    blocks.push_back(random_blocks(plans[i].type, kCols * kRows, random));
    writer.write(i, 0, blocks[i].data(), blocks[i].size());
  }
  writer.commit();
  ASSERT_EQ(run("llama-quantize", "--allow-requantize '" + path("random.gguf") + "' '" +
                                      path("f32.gguf") + "' F32 1"),
            0)
      << slurp(path("log"));

  const File stock = File::open(path("f32.gguf"));
  std::vector<float> values(kCols * kRows);
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const Tensor& expected = stock.require(plans[i].name);
    ASSERT_EQ(expected.type, Type::F32) << plans[i].name;
    find_decoder(plans[i].type)(blocks[i].data(), values.size(), values.data());
    EXPECT_EQ(std::memcmp(values.data(), expected.data, values.size() * sizeof(float)), 0)
        << traits(plans[i].type).name;
  }
}

TEST_F(StockTest, SplitsAreTheWholeFile) {
  if (find_tool("llama-gguf-split").empty())
    GTEST_SKIP() << "llama-gguf-split not found: put it on PATH or set LLAMA_CPP_BIN";
  for (const std::string options : {"", "--no-tensor-first-split "}) {
    const std::string prefix = path(options.empty() ? "plain" : "bare");
    ASSERT_EQ(run("llama-gguf-split",
                  "--split " + options + "--split-max-tensors 20 '" + kNano + "' '" + prefix + "'"),
              0)
        << slurp(path("log"));
    std::string first;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().string().starts_with(prefix + "-00001-of-")) first = entry.path().string();
    ASSERT_FALSE(first.empty());
    const File split = File::open(first);
    EXPECT_GT(split.paths().size(), 2u);
    const Difference difference = compare(File::open(kNano), split);
    EXPECT_TRUE(difference.tensors.empty());
    for (const KeyDifference& key : difference.keys)
      EXPECT_TRUE(key.key.starts_with("split.")) << key.key;
  }
}

TEST_F(StockTest, ReadsWhatTheWriterWrote) {
  if (find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  const File nano = File::open(kNano);
  std::vector<TensorPlan> plans;
  for (const Tensor& t : nano.tensors()) plans.push_back({t.name, t.type, t.n_dims, t.shape});
  Metadata metadata = nano.metadata();
  metadata.set("spectralquant.test", Value::of_strings({"a", ""}));
  Writer writer(path("ours.gguf"), metadata, plans);
  for (std::size_t i = 0; i < plans.size(); ++i)
    writer.write(i, 0, nano.tensors()[i].data, nano.tensors()[i].size_bytes);
  writer.commit();
  EXPECT_EQ(run("llama-quantize", "--dry-run --pure '" + path("ours.gguf") + "' Q4_K_M 1"), 0)
      << slurp(path("log"));
}

}  // namespace
}  // namespace spectralquant::gguf
