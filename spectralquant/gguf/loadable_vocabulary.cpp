#include <fmt/format.h>

#include <string>
#include <unordered_map>

#include "spectralquant/gguf/load_check.h"

namespace spectralquant::gguf {
namespace {

using enum ValueType;

constexpr const char* kPrefix = "tokenizer.ggml.";

constexpr std::string_view kIds[] = {"bos",       "eos",     "eot",     "eom",     "unknown",
                                     "seperator", "padding", "mask",    "fim_pre", "fim_suf",
                                     "fim_mid",   "fim_pad", "fim_rep", "fim_sep", "prefix",
                                     "suffix",    "middle"};
constexpr std::string_view kTokenFlags[] = {"add_bos_token",
                                            "add_eos_token",
                                            "add_sep_token",
                                            "add_space_prefix",
                                            "remove_extra_whitespaces",
                                            "normalizer.nfc",
                                            "normalizer.lowercase",
                                            "normalizer.strip_accents"};

/// llama.cpp keeps tokens in a map and aborts when two of them are the same. It reads them up to
/// their first NUL, and gives empty ones a name of their own.
void check_distinct(LoadCheck& check, const Value& tokens) {
  std::unordered_map<std::string, std::size_t> seen;
  const auto words = tokens.strings();
  seen.reserve(words.size());
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string word(words[i].substr(0, words[i].find('\0')));
    if (word.empty()) word = fmt::format("[EMPTY_{}]", i);
    const auto [it, is_new] = seen.emplace(std::move(word), i);
    if (is_new) continue;
    check.fail(fmt::format("tokens {} and {} of the vocabulary are the same: \"{}\"", it->second, i,
                           it->first));
    return;
  }
}

void check_lengths(LoadCheck& check, const std::string& key, const Value* list,
                   std::size_t n_tokens) {
  if (list && list->array_size() < n_tokens)
    check.fail(fmt::format("metadata key {} has {} elements for {} tokens", key, list->array_size(),
                           n_tokens));
}

}  // namespace

void check_vocabulary(LoadCheck& check) {
  const auto key = [](std::string_view name) { return kPrefix + std::string(name); };
  const Value* model = check.scalar(key("model"), kString, LoadCheck::kRequired);
  const Value* pre = check.scalar(key("pre"), kString);
  check.scalar(key("token_type_count"), kUint32);
  if (!model) return;
  const std::string_view kind = *model->as_string();
  if (kind == "no_vocab" || kind == "none") {
    check.scalar(check.file().architecture() + ".vocab_size", kUint32);
    return;
  }
  for (const std::string_view id : kIds) check.scalar(key(id) + "_token_id", kUint32);
  for (const std::string_view flag : kTokenFlags) check.scalar(key(flag), kBool);
  check.array(key("suppress_tokens"), {kInt32});
  if (kind == "gpt2" || kind == "gemma4" || kind == "hybriddna" || kind == "whitespace") {
    const bool needs_none = pre && pre->as_string() == "kimi-k2";
    check.array(key("merges"), {kString}, needs_none ? LoadCheck::kOptional : LoadCheck::kRequired);
  }
  if (kind == "t5") check.array(key("precompiled_charsmap"), {kInt8, kUint8});

  const Value* tokens = check.array(key("tokens"), {kString}, LoadCheck::kRequired);
  if (!tokens) return;
  const std::size_t n = tokens->array_size();
  check_lengths(check, key("scores"), check.array(key("scores"), {kFloat32, kInt32}), n);
  check_lengths(check, key("token_type"), check.array(key("token_type"), {kInt32}), n);
  check_distinct(check, *tokens);
  if (const Tensor* embedding = check.file().find("token_embd.weight");
      embedding && embedding->n_rows() != n)
    check.fail(fmt::format("token_embd.weight has {} rows for a vocabulary of {} tokens",
                           embedding->n_rows(), n));
}

}  // namespace spectralquant::gguf
