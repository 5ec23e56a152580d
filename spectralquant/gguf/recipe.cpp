#include "spectralquant/gguf/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <numeric>
#include <regex>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/strict.h"

namespace spectralquant::gguf {
namespace {

enum class Part { kHead, kEmbedding, kValues, kKeys, kAttentionOutput, kDown, kOther };

/// Which matrices of a part a rule is for; they are counted in the order of their blocks.
enum class Where {
  kAll,
  kFirstTwo,
  kFirstFour,
  kFirstEighth,
  kFirstEighthWithoutImportance,
  kFirstSixteenth,
  kEndsAndEveryThird,  ///< the first and last eighth of the blocks, and each third between
  kGroupedHeads,       ///< of models with at least four heads to a key
};

struct Rule {
  std::string_view recipe;
  Part part;
  Where where;
  Type type;
};

/// The first that fits holds.
constexpr Rule kRules[] = {
    {"Q2_K", Part::kValues, Where::kGroupedHeads, Type::Q4_K},
    {"Q2_K", Part::kValues, Where::kAll, Type::Q3_K},
    {"Q2_K", Part::kDown, Where::kAll, Type::Q3_K},
    {"Q2_K", Part::kAttentionOutput, Where::kAll, Type::Q3_K},
    {"Q2_K_S", Part::kValues, Where::kGroupedHeads, Type::Q4_K},
    {"Q2_K_S", Part::kDown, Where::kFirstEighth, Type::Q4_K},
    {"Q3_K_M", Part::kValues, Where::kFirstTwo, Type::Q5_K},
    {"Q3_K_M", Part::kValues, Where::kAll, Type::Q4_K},
    {"Q3_K_M", Part::kDown, Where::kFirstSixteenth, Type::Q5_K},
    {"Q3_K_M", Part::kDown, Where::kAll, Type::Q4_K},
    {"Q3_K_M", Part::kAttentionOutput, Where::kAll, Type::Q4_K},
    {"Q3_K_L", Part::kValues, Where::kAll, Type::Q5_K},
    {"Q3_K_L", Part::kDown, Where::kAll, Type::Q5_K},
    {"Q3_K_L", Part::kAttentionOutput, Where::kAll, Type::Q5_K},
    {"IQ4_XS", Part::kValues, Where::kGroupedHeads, Type::Q5_K},
    {"IQ4_XS", Part::kDown, Where::kFirstEighthWithoutImportance, Type::Q5_K},
    {"IQ4_NL", Part::kValues, Where::kGroupedHeads, Type::Q5_K},
    {"IQ4_NL", Part::kDown, Where::kFirstEighthWithoutImportance, Type::Q5_K},
    {"Q4_K_S", Part::kValues, Where::kFirstFour, Type::Q5_K},
    {"Q4_K_S", Part::kDown, Where::kFirstEighth, Type::Q5_K},
    {"Q4_K_M", Part::kValues, Where::kEndsAndEveryThird, Type::Q6_K},
    {"Q4_K_M", Part::kDown, Where::kEndsAndEveryThird, Type::Q6_K},
    {"Q5_K_M", Part::kValues, Where::kEndsAndEveryThird, Type::Q6_K},
    {"Q5_K_M", Part::kDown, Where::kEndsAndEveryThird, Type::Q6_K},
};

/// Recipes whose attention outputs get Q5_K in models of eight experts.
constexpr std::string_view kMoreForEightExperts[] = {"Q2_K",   "Q3_K_S", "Q3_K_M", "IQ4_NL",
                                                     "Q4_K_S", "Q4_K_M", "IQ4_XS"};

Part part_of(std::string_view name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (name == "output.weight") return Part::kHead;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") return Part::kEmbedding;
  if (has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight"))
    return Part::kValues;
  if (has("attn_k.weight")) return Part::kKeys;
  if (has("attn_output.weight")) return Part::kAttentionOutput;
  return has("ffn_down") ? Part::kDown : Part::kOther;
}

/// "blk.7.ffn_down.weight": 7; −1 for tensors of no block.
int block_of(std::string_view name) {
  int block = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), block);
  return block;
}

/// Matrices in the order that llama-quantize counts them in: by block, then by name.
std::vector<std::size_t> counting_order(const File& file) {
  std::vector<std::size_t> order(file.tensors().size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const std::string &left = file.tensors()[a].name, &right = file.tensors()[b].name;
    return std::pair(block_of(left), std::string_view(left)) <
           std::pair(block_of(right), std::string_view(right));
  });
  return order;
}

/// What the rules ask of a model.
struct Facts {
  std::string architecture;
  std::int64_t n_blocks = 0, n_experts = 0, heads_to_a_key = 0;
  std::int64_t n_values = 0;  ///< matrices of Part::kValues
  bool is_70b = false, is_tied = true;

  explicit Facts(const File& file) : architecture(file.architecture()) {
    n_blocks = first_number(file, "block_count", 0);
    n_experts = first_number(file, "expert_count", 0);
    const std::int64_t heads = first_number(file, "attention.head_count", 0),
                       keys = first_number(file, "attention.head_count_kv", heads);
    heads_to_a_key = keys > 0 ? heads / keys : 0;
    // as llama.cpp calls such models: many heads share few values, which are small then
    is_70b =
        n_blocks == 80 && (architecture == "qwen2" || (architecture == "llama" && heads != keys));
    for (const Tensor& tensor : file.tensors()) {
      const Part part = part_of(tensor.name);
      n_values += part == Part::kValues ? 1 : 0;
      if (part == Part::kHead) is_tied = false;
    }
  }

 private:
  /// A number, or the first of an array that has one for each block.
  std::int64_t first_number(const File& file, std::string_view key, std::int64_t otherwise) const {
    const std::string whole = fmt::format("{}.{}", architecture, key);
    const Value* value = file.metadata().find(whole);
    if (!value) return otherwise;
    if (const auto numbers = value->numbers(); !numbers.empty())
      return static_cast<std::int64_t>(numbers.front());
    return file.metadata().int_or(whole, otherwise);
  }
};

/// Matrix number i of a part of n.
bool fits(Where where, std::int64_t i, std::int64_t n, const Facts& facts, bool with_importance) {
  switch (where) {
    case Where::kAll:
      return true;
    case Where::kFirstTwo:
      return i < 2;
    case Where::kFirstFour:
      return i < 4;
    case Where::kFirstEighth:
      return i < n / 8;
    case Where::kFirstEighthWithoutImportance:
      return i < n / 8 && !with_importance;
    case Where::kFirstSixteenth:
      return i < n / 16;
    case Where::kEndsAndEveryThird:
      return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case Where::kGroupedHeads:
      return facts.heads_to_a_key >= 4;
  }
  return false;
}

Type ruled_type(const Recipe& recipe, Part part, std::int64_t i, const Facts& facts,
                bool with_importance) {
  const std::int64_t n = part == Part::kValues ? facts.n_values : facts.n_blocks;
  for (const Rule& rule : kRules) {
    if (rule.recipe == recipe.name && rule.part == part &&
        fits(rule.where, i, n, facts, with_importance))
      return rule.type;
  }
  return recipe.base;
}

Type type_of(const Recipe& recipe, const Tensor& tensor, Part part, std::int64_t i,
             const Facts& facts, bool with_importance) {
  if (part == Part::kHead || (part == Part::kEmbedding && facts.is_tied)) {
    const bool whole = tensor.n_cols() % traits(recipe.base).block_values == 0;
    return whole && recipe.base != Type::Q8_0 ? Type::Q6_K : Type::Q8_0;
  }
  const bool eight_experts = facts.n_experts == 8;
  if (part == Part::kKeys) return eight_experts ? Type::Q8_0 : recipe.base;
  if (part == Part::kAttentionOutput && eight_experts) {
    return std::ranges::find(kMoreForEightExperts, recipe.name) != std::end(kMoreForEightExperts)
               ? Type::Q5_K
               : recipe.base;
  }
  const Type type = ruled_type(recipe, part, i, facts, with_importance);
  if (part != Part::kValues) return type;
  if (eight_experts) return Type::Q8_0;
  return facts.is_70b && (type == Type::Q3_K || type == Type::Q4_K) ? Type::Q5_K : type;
}

/// Overrides with their patterns compiled.
class Patterns {
 public:
  explicit Patterns(const TypeOverrides& overrides) {
    for (const auto& [pattern, type] : overrides) {
      try {
        patterns_.emplace_back(std::regex(pattern), type);
      } catch (const std::regex_error&) {
        throw Error(ErrorCode::kBadUsage,
                    fmt::format("\"{}\" is no regular expression for names of tensors", pattern),
                    {}, "write a part of the name, e.g. attn_v or blk\\.[0-3]\\.ffn_down");
      }
    }
  }
  /// The type of the first that matches; nullptr if none does.
  const Type* find(const std::string& name) const {
    for (const auto& [pattern, type] : patterns_) {
      if (std::regex_search(name, pattern)) return &type;
    }
    return nullptr;
  }

 private:
  std::vector<std::pair<std::regex, Type>> patterns_;
};

}  // namespace

const std::vector<Recipe>& all_recipes() {
  static const std::vector<Recipe> recipes = {
      {"Q2_K_S", Type::Q2_K, 21},   {"Q2_K", Type::Q2_K, 10},   {"Q3_K_S", Type::Q3_K, 11},
      {"Q3_K_M", Type::Q3_K, 12},   {"Q3_K_L", Type::Q3_K, 13}, {"IQ4_XS", Type::IQ4_XS, 30},
      {"IQ4_NL", Type::IQ4_NL, 25}, {"Q4_K_S", Type::Q4_K, 14}, {"Q4_K_M", Type::Q4_K, 15},
      {"Q5_K_S", Type::Q5_K, 16},   {"Q5_K_M", Type::Q5_K, 17}, {"Q6_K", Type::Q6_K, 18},
      {"Q8_0", Type::Q8_0, 7}};
  return recipes;
}

const Recipe* find_recipe(std::string_view name) {
  const auto upper = [](char c) { return std::toupper(static_cast<unsigned char>(c)); };
  for (const Recipe& recipe : all_recipes()) {
    if (std::ranges::equal(name, recipe.name, {}, upper, upper)) return &recipe;
  }
  return nullptr;
}

std::vector<Type> recipe_types(const File& file, const Recipe& recipe, bool with_importance,
                               const TypeOverrides& overrides) {
  const Facts facts(file);
  if (facts.architecture == "falcon") {
    throw Error(ErrorCode::kBadUsage, "the mixes of falcon are not known", file.path(),
                "give one type for all matrices, or types by name");
  }
  const Patterns patterns(overrides);
  std::vector<Type> types(file.tensors().size());
  std::int64_t n_values = 0, n_down = 0;
  for (const std::size_t index : counting_order(file)) {
    const Tensor& tensor = file.tensors()[index];
    types[index] = tensor.type;
    if (!is_matrix_to_quantize(facts.architecture, tensor)) continue;
    if (const Type* type = patterns.find(tensor.name)) {  // such matrices are not counted
      types[index] = *type;
      continue;
    }
    const Part part = part_of(tensor.name);
    std::int64_t number = 0;
    if (part == Part::kValues) number = n_values++;
    if (part == Part::kDown) {
      number = n_down++;
      if (facts.n_experts > 1) number = block_of(tensor.name);  // several to a block
    }
    types[index] = type_of(recipe, tensor, part, number, facts, with_importance);
  }
  return types;
}

const Recipe* matching_recipe(const File& file) {
  const Inventory inventory = take_inventory(file);
  if (file.architecture() == "falcon" || inventory.strict || inventory.n_matrix_values == 0)
    return nullptr;
  for (const Recipe& recipe : all_recipes()) {
    for (const bool with_importance : {true, false}) {
      const std::vector<Type> types = recipe_types(file, recipe, with_importance);
      const bool same = std::ranges::equal(types, file.tensors(), {}, {}, &Tensor::type);
      if (same) return &recipe;
    }
  }
  return nullptr;
}

}  // namespace spectralquant::gguf
