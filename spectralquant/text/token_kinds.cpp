#include "spectralquant/text/token_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>

#include "spectralquant/core/error.h"
#include "spectralquant/text/vocabulary.h"

namespace spectralquant::text {
namespace {

/// Texts that llama.cpp takes for control tokens whatever their type says (converters forget to
/// mark them).
/// Source  llama-vocab.cpp: the tokens that end a generation, and those of filling in the middle.
constexpr std::string_view kControlTexts[] = {"<|eot_id|>",
                                              "<|im_end|>",
                                              "<|end|>",
                                              "<|return|>",
                                              "<|call|>",
                                              "<|flush|>",
                                              "<|calls|>",
                                              "<end_of_turn>",
                                              "<|endoftext|>",
                                              "</s>",
                                              "<|eom_id|>",
                                              "<EOT>",
                                              "_<EOT>",
                                              "[EOT]",
                                              "[EOS]",
                                              "<|end_of_text|>",
                                              "<end_of_utterance>",
                                              "<eos>",
                                              "<turn|>",
                                              "<|tool_response>",
                                              "<｜end▁of▁sentence｜>",
                                              "[e~[",
                                              "<|ifm|im_end|>"};

struct FillInMiddle {
  std::string_view keys[2];  ///< when one of them names the token, texts do not count
  std::vector<std::string_view> texts;
};
const std::vector<FillInMiddle>& fill_in_middle() {
  static const std::vector<FillInMiddle> all = {
      {{"fim_pre_token_id", "prefix_token_id"},
       {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>", "<|plamo:fim_prefix|>"}},
      {{"fim_suf_token_id", "suffix_token_id"},
       {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>", "<|plamo:fim_suffix|>"}},
      {{"fim_mid_token_id", "middle_token_id"},
       {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>", "<|plamo:fim_middle|>"}},
      {{"fim_pad_token_id", ""}, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
      {{"fim_rep_token_id", ""},
       {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
      {{"fim_sep_token_id", ""}, {"<|file_sep|>", "<|plamo:file_separator|>"}},
  };
  return all;
}

/// Texts llama.cpp always takes for user-defined tokens (gpt-oss).
constexpr std::string_view kUserDefinedTexts[] = {"<|channel|>", "<|message|>", "<|start|>",
                                                  "<|constrain|>"};

std::string key_of(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

std::vector<TokenKind> read_file(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  std::vector<TokenKind> kinds(vocabulary.size(), TokenKind::kNormal);
  const gguf::Value* value = metadata.find("tokenizer.ggml.token_type");
  if (!value) return kinds;
  const std::vector<double> numbers = value->numbers();
  if (numbers.size() < vocabulary.size()) {
    throw bad_input(fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens",
                                numbers.size(), vocabulary.size()),
                    metadata.place, "convert the model again");
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    kinds[i] = numbers[i] >= 0 && numbers[i] <= 6
                   ? static_cast<TokenKind>(static_cast<int>(numbers[i]))
                   : TokenKind::kUndefined;
  }
  return kinds;
}

/// The first of the texts that is a token; "" if none is. Of several it is the one that llama.cpp
/// meets first in its hash table of all tokens, in the order of libstdc++.
std::string_view find_first(const Vocabulary& vocabulary,
                            const std::vector<std::string_view>& texts) {
  std::vector<std::string_view> found;
  for (std::string_view text : texts)
    if (vocabulary.find(text) >= 0) found.push_back(text);
  if (found.size() < 2) return found.empty() ? std::string_view() : found[0];
  std::unordered_map<std::string, std::size_t> table;
  for (std::size_t id = 0; id < vocabulary.size(); ++id) table.emplace(vocabulary.text(id), id);
  for (const auto& [text, id] : table) {
    const auto at = std::find(found.begin(), found.end(), text);
    if (at != found.end()) return *at;
  }
  return {};
}

void correct(const gguf::Metadata& metadata, const Vocabulary& vocabulary,
             std::vector<TokenKind>& kinds) {
  const auto set = [&](std::string_view text, TokenKind kind) {
    if (const TokenId id = vocabulary.find(text); id >= 0) kinds[id] = kind;
  };
  for (const FillInMiddle& part : fill_in_middle()) {
    const bool named = metadata.find(key_of(part.keys[0])) ||
                       (!part.keys[1].empty() && metadata.find(key_of(part.keys[1])));
    if (!named) set(find_first(vocabulary, part.texts), TokenKind::kControl);
  }
  for (std::string_view text : kControlTexts) set(text, TokenKind::kControl);
  for (std::string_view text : kUserDefinedTexts) set(text, TokenKind::kUserDefined);
  const auto has = [&](std::string_view text) { return vocabulary.find(text) >= 0; };
  if ((has("<|return|>") && (has("<|call|>") || has("<|calls|>"))) ||
      ((has("<|call|>") || has("<|calls|>")) && has("<|flush|>"))) {
    set("<|end|>", TokenKind::kUserDefined);
  }
  if (has("<|tool_response>")) set("</s>", TokenKind::kNormal);
}

}  // namespace

std::vector<TokenKind> read_token_kinds(const gguf::Metadata& metadata,
                                        const Vocabulary& vocabulary) {
  std::vector<TokenKind> kinds = read_file(metadata, vocabulary);
  correct(metadata, vocabulary, kinds);
  return kinds;
}

}  // namespace spectralquant::text
