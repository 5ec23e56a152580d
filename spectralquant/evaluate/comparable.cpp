#include "spectralquant/evaluate/comparable.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "spectralquant/core/error.h"
#include "spectralquant/text/pretokenizer.h"

namespace spectralquant::evaluate {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";

std::string key_of(std::string_view name) { return std::string(kPrefix) + std::string(name); }

std::vector<std::string_view> strings_of(const gguf::Metadata& metadata, std::string_view name) {
  const auto* value = metadata.find(key_of(name));
  return value ? value->strings() : std::vector<std::string_view>{};
}

/// Scores of a SentencePiece vocabulary: what decides which tokens are joined.
std::vector<double> scores_of(const gguf::Metadata& metadata) {
  const auto* value = metadata.find(key_of("scores"));
  return value ? value->numbers() : std::vector<double>{};
}

/// Aliases of one pre-tokenizer count as the same.
std::string_view pretokenizer_of(const gguf::Metadata& metadata) {
  const auto name = metadata.string_or(key_of("pre"), "");
  const auto* spec = text::find_pretokenizer(name);
  return spec ? spec->name : name;
}

/// Where two lists part, as a clause; "" if they are equal.
template <typename Item>
std::string difference_of(const std::vector<Item>& ours, const std::vector<Item>& theirs,
                          const char* noun) {
  if (ours.size() != theirs.size())
    return fmt::format("it has {} {}s, the reference {}", ours.size(), noun, theirs.size());
  const auto [a, b] = std::mismatch(ours.begin(), ours.end(), theirs.begin());
  if (a == ours.end()) return {};
  return fmt::format("{} {} is another one", noun, a - ours.begin());
}

/// What cannot be scored beside the reference, as a clause; "" if it can.
std::string obstacle(const gguf::Metadata& reference, const gguf::Metadata& candidate) {
  const auto model = key_of("model");
  if (candidate.string_or(model, "") != reference.string_or(model, ""))
    return "it is of another kind (tokenizer.ggml.model)";
  if (auto text =
          difference_of(strings_of(candidate, "tokens"), strings_of(reference, "tokens"), "token");
      !text.empty())
    return text;
  if (auto text =
          difference_of(strings_of(candidate, "merges"), strings_of(reference, "merges"), "merge");
      !text.empty())
    return text;
  if (reference.string_or(model, "") == "llama")
    return difference_of(scores_of(candidate), scores_of(reference), "score");
  if (reference.string_or(model, "") != "gemma4" &&
      pretokenizer_of(candidate) != pretokenizer_of(reference))
    return "its pre-tokenizer is another one (tokenizer.ggml.pre)";
  return {};
}

/// A number or a yes or no, as a note has it; none where the key is absent.
std::optional<std::string> shown(const gguf::Value* value) {
  if (!value) return std::nullopt;
  if (value->type() == gguf::ValueType::kBool)
    return value->as_bool().value_or(false) ? "true" : "false";
  if (const auto number = value->as_int()) return fmt::format("{}", *number);
  return std::nullopt;
}

std::string types_note(const gguf::Metadata& reference, const gguf::Metadata& candidate) {
  const auto *theirs = reference.find(key_of("token_type")),
             *ours = candidate.find(key_of("token_type"));
  if (!theirs || !ours)
    return !theirs == !ours ? ""
           : ours           ? "it has token types, the reference has none"
                            : "it has no token types, the reference has";
  const auto a = ours->numbers(), b = theirs->numbers();
  if (a.size() != b.size())
    return fmt::format("it has {} token types, the reference {}", a.size(), b.size());
  std::size_t n = 0, first = 0;
  for (std::size_t i = a.size(); i-- > 0;)
    if (a[i] != b[i]) ++n, first = i;
  if (n == 0) return {};
  return n == 1 ? fmt::format("the type of token {} is {:g}, the reference's is {:g}", first,
                              a[first], b[first])
                : fmt::format("the types of {} tokens differ, the first of token {}", n, first);
}

}  // namespace

std::vector<std::string> compare_tokenizers(const gguf::Metadata& reference,
                                            const gguf::Metadata& candidate) {
  if (const auto why = obstacle(reference, candidate); !why.empty())
    throw bad_input("its tokenizer is not the reference's: " + why, candidate.place,
                    "compare quantizations of one model only");
  std::vector<std::string> keys, notes;
  for (const auto* metadata : {&reference, &candidate})
    for (const auto& [key, value] : metadata->items())
      if (key.starts_with(kPrefix) &&
          (key.ends_with("_token_id") || key.starts_with(key_of("add_"))) &&
          std::find(keys.begin(), keys.end(), key) == keys.end())
        keys.push_back(key);
  for (const auto& key : keys) {
    const auto theirs = shown(reference.find(key)), ours = shown(candidate.find(key));
    const auto name = key.substr(kPrefix.size());
    if (ours == theirs) continue;
    notes.push_back(!ours ? fmt::format("it has no {}, the reference's is {}", name, *theirs)
                    : !theirs
                        ? fmt::format("{} is {}, the reference has none", name, *ours)
                        : fmt::format("{} is {}, the reference's is {}", name, *ours, *theirs));
  }
  if (auto note = types_note(reference, candidate); !note.empty()) notes.push_back(note);
  return notes;
}

}  // namespace spectralquant::evaluate
