#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/recipe.h"
#include "stock_tool.h"

namespace spectralquant::gguf {
namespace {

using test::le;
using test::str;

constexpr std::uint32_t kU32 = 4, kString = 8, kF32 = 6, kF16Type = 1;

/// A model of which only names, shapes and a few numbers matter.
struct Model {
  std::string name, architecture;
  std::uint32_t n_blocks, n_heads, n_keys, n_experts = 0;
  bool is_tied = false, is_fused = false;
};

const std::vector<Model> kModels = {
    {"llama", "llama", 32, 8, 4},
    {"llama-grouped", "llama", 24, 8, 2, 0, true},
    {"llama-70b", "llama", 80, 8, 1},
    {"llama-experts", "llama", 16, 8, 2, 8},
    {"qwen2", "qwen2", 28, 4, 2, 0, true},
    {"qwen3", "qwen3", 36, 4, 1},
    {"gpt2-like", "phi2", 12, 4, 4, 0, false, true},
};

std::string bytes_of(const Model& model) {
  test::HandMade out;
  const auto number = [&](const std::string& key, std::uint32_t value) {
    out.key(model.architecture + "." + key, kU32, le(value));
  };
  const auto real = [&](const std::string& key, float value) {
    out.key(model.architecture + "." + key, kF32, le(value));
  };
  out.key("general.architecture", kString, str(model.architecture));
  number("block_count", model.n_blocks);
  number("context_length", 128);
  number("embedding_length", 256);
  number("feed_forward_length", 256);
  number("attention.head_count", model.n_heads);
  number("attention.head_count_kv", model.n_keys);
  number("rope.dimension_count", 256 / model.n_heads);
  real("attention.layer_norm_rms_epsilon", 1e-6f);
  real("attention.layer_norm_epsilon", 1e-6f);
  if (model.n_experts > 0) {
    number("expert_count", model.n_experts);
    number("expert_used_count", 2);
  }
  std::uint64_t offset = 0;
  const auto matrix = [&](const std::string& name, std::vector<std::uint64_t> shape) {
    out.tensor(name + ".weight", shape, kF16Type, offset);
    std::uint64_t size = 2;
    for (const std::uint64_t n : shape) size *= n;
    offset += (size + 31) / 32 * 32;
  };
  matrix("token_embd", {256, 2});
  if (!model.is_tied) matrix("output", {256, 2});
  for (std::uint32_t b = 0; b < model.n_blocks; ++b) {
    const std::string block = fmt::format("blk.{}.", b);
    for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      if (!model.is_fused || part == std::string("attn_output")) matrix(block + part, {256, 2});
    }
    if (model.is_fused) matrix(block + "attn_qkv", {256, 2});
    for (const char* part : {"ffn_up", "ffn_gate", "ffn_down"}) {
      if (model.n_experts > 0) {
        matrix(block + part + "_exps", {256, 2, model.n_experts});
      } else {
        matrix(block + part, {256, 2});
      }
    }
  }
  out.data = std::string(offset, '\0');
  return out.bytes();
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

class RecipeTest : public test::FolderTest {
 protected:
  File file_of(const Model& model) { return File::open(put("m.gguf", bytes_of(model))); }
};

/// "Q4_K_M output.weight q6_k" for every matrix that does not have the recipe's base type.
std::vector<std::string> lines_of(const File& file, const Recipe& recipe) {
  std::vector<std::string> lines;
  const std::vector<Type> types = recipe_types(file, recipe, false);
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (types[i] != recipe.base)
      lines.push_back(fmt::format("{} {} {}", recipe.name, file.tensors()[i].name,
                                  lower(traits(types[i]).name)));
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

/// The same from `llama-quantize --dry-run`: "… - [..], type = f16, size = … -> … MiB (q6_K)".
std::vector<std::string> lines_of_stock(const std::string& model, const Recipe& recipe,
                                        const std::string& log) {
  const std::string command =
      fmt::format("'{}' --dry-run '{}' {} > '{}' 2>&1",
                  spectralquant::test::find_tool("llama-quantize"), model, recipe.name, log);
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  std::vector<std::string> lines;
  std::ifstream in(log);
  for (std::string line; std::getline(in, line);) {
    const auto name = line.find("] "), arrow = line.find("->"), type = line.rfind('(');
    if (line.empty() || line[0] != '[' || arrow == std::string::npos) continue;
    const std::string word = line.substr(name + 2, line.find(' ', name + 2) - name - 2),
                      found = lower(line.substr(type + 1, line.rfind(')') - type - 1));
    if (found != lower(traits(recipe.base).name))
      lines.push_back(fmt::format("{} {} {}", recipe.name, word, found));
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::string golden_path(const std::string& model) {
  return SQ_SOURCE_DIR "/tests/golden/recipe/" + model + ".txt";
}

std::vector<std::string> lines_in(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST_F(RecipeTest, TypesAreThoseOfStock) {
  for (const Model& model : kModels) {
    SCOPED_TRACE(model.name);
    std::vector<std::string> lines;
    const File file = file_of(model);
    for (const Recipe& recipe : all_recipes()) {
      const auto more = lines_of(file, recipe);
      lines.insert(lines.end(), more.begin(), more.end());
    }
    const auto expected = lines_in(golden_path(model.name));
    EXPECT_FALSE(expected.empty());
    EXPECT_EQ(lines, expected);
  }
}

// Writes tests/golden/recipe anew with SQ_WRITE_GOLDEN=tests/golden/recipe.
TEST_F(RecipeTest, TheGoldenListsAreThoseOfTheInstalledStock) {
  if (spectralquant::test::find_tool("llama-quantize").empty())
    GTEST_SKIP() << "llama-quantize not found: put it on PATH or set LLAMA_CPP_BIN";
  const char* folder = std::getenv("SQ_WRITE_GOLDEN");
  for (const Model& model : kModels) {
    SCOPED_TRACE(model.name);
    if (!folder && model.n_blocks > 36) continue;  // takes long
    const std::string path = put("m.gguf", bytes_of(model));
    std::vector<std::string> lines;
    for (const Recipe& recipe : all_recipes()) {
      const auto more = lines_of_stock(path, recipe, path + ".log");
      lines.insert(lines.end(), more.begin(), more.end());
    }
    if (folder) {
      std::ofstream out(fmt::format("{}/{}.txt", folder, model.name));
      for (const std::string& line : lines) out << line << '\n';
    } else {
      EXPECT_EQ(lines, lines_in(golden_path(model.name)));
    }
  }
}

TEST_F(RecipeTest, ImportanceDecidesTheFirstBlocksOfIq4) {
  const File file = file_of(kModels[0]);
  const Recipe& recipe = *find_recipe("iq4_xs");
  const auto count = [&](bool with_importance) {
    const auto types = recipe_types(file, recipe, with_importance);
    return std::ranges::count(types, Type::Q5_K);
  };
  EXPECT_EQ(count(false), 4);
  EXPECT_EQ(count(true), 0);
}

TEST_F(RecipeTest, NamesDecideBeforeTheMix) {
  const File file = file_of(kModels[0]);
  const auto types = recipe_types(file, *find_recipe("Q4_K_M"), true,
                                  {{"attn_v", Type::Q8_0}, {"blk\\.[0-1]\\..*", Type::Q2_K}});
  for (std::size_t i = 0; i < types.size(); ++i) {
    const std::string& name = file.tensors()[i].name;
    if (name.find("attn_v") != std::string::npos) {
      EXPECT_EQ(types[i], Type::Q8_0) << name;
    } else if (name.starts_with("blk.1.")) {
      EXPECT_EQ(types[i], Type::Q2_K) << name;
    }
  }
  try {
    recipe_types(file, *find_recipe("Q4_K_M"), true, {{"attn_(", Type::Q8_0}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadUsage);
    EXPECT_NE(error.problem().find("\"attn_(\" is no regular expression"), std::string::npos);
  }
}

TEST_F(RecipeTest, IsFoundByNameAndByTheTypesOfAFile) {
  EXPECT_EQ(find_recipe("q4_k_m")->name, "Q4_K_M");
  EXPECT_EQ(find_recipe("q4_k"), nullptr);
  test::HandMade mixed;
  mixed.key("general.architecture", kString, str("llama"));
  mixed.key("llama.block_count", kU32, le(std::uint32_t{1}));
  mixed.tensor("output.weight", {256, 2}, 14, 0).tensor("blk.0.attn_q.weight", {256, 2}, 12, 448);
  mixed.data = std::string(448 + 288, '\0');
  // no rule of these names another matrix: the first that fits is named
  EXPECT_EQ(matching_recipe(File::open(put("m.gguf", mixed.bytes())))->name, "Q4_K_S");
  EXPECT_EQ(matching_recipe(file_of(kModels[0])), nullptr);
}

}  // namespace
}  // namespace spectralquant::gguf
