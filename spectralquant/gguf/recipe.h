#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// A mix of types that llama-quantize knows by name: most matrices have one type, some have more
/// bits.
struct Recipe {
  std::string_view name;    ///< "Q4_K_M"
  Type base;                ///< of every matrix that no rule names
  std::uint32_t file_type;  ///< general.file_type (llama_ftype)
};

/// All of them, in ascending order of bits.
const std::vector<Recipe>& all_recipes();

/// nullptr for any other name; the case of letters does not matter.
const Recipe* find_recipe(std::string_view name);

/// Names and the type of the tensors that match: PATTERN is a regular expression, found anywhere in
/// the name.
using TypeOverrides = std::vector<std::pair<std::string, Type>>;

/// What llama-quantize would make of every tensor of a file, in the file's order, before it looks
/// at the number of columns. Tensors that are no matrix keep their type.
///
/// with_importance: whether an importance matrix is given, which decides a few of the types.
/// Errors   Error(kBadUsage) for a pattern that is no regular expression, and for architectures
///          whose mixes are others (falcon).
/// Source   llama.cpp, llama-quant.cpp (llama_tensor_get_type), build 11669.
std::vector<Type> recipe_types(const File& file, const Recipe& recipe, bool with_importance,
                               const TypeOverrides& overrides = {});

/// The recipe that the types of a file's matrices follow, made with or without importance; nullptr
/// if there is none, or if all have one type.
const Recipe* matching_recipe(const File& file);

}  // namespace spectralquant::gguf
