#include "spectralquant/text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/core/error.h"

namespace spectralquant::text {
namespace {

std::vector<std::string> read_tokens(const gguf::Metadata& metadata) {
  const gguf::Value* value = metadata.find("tokenizer.ggml.tokens");
  if (!value || !value->is_array() || value->element_type() != gguf::ValueType::kString ||
      value->array_size() == 0) {
    throw bad_input("tokenizer.ggml.tokens is missing or no list of texts", metadata.place,
                    "use a GGUF that carries its tokenizer");
  }
  std::vector<std::string> tokens;
  for (std::string_view text : value->strings()) {
    text = text.substr(0, text.find('\0'));  // llama.cpp reads them as C strings
    tokens.emplace_back(text.empty() ? fmt::format("[EMPTY_{}]", tokens.size()) : text);
  }
  return tokens;
}

}  // namespace

Vocabulary::Vocabulary(const gguf::Metadata& metadata) : tokens_(read_tokens(metadata)) {
  ids_.reserve(tokens_.size());
  for (std::size_t id = 0; id < tokens_.size(); ++id) {
    const auto [known, is_new] = ids_.emplace(tokens_[id], static_cast<TokenId>(id));
    if (!is_new) {
      throw bad_input(fmt::format("token '{}' is in the vocabulary twice, as {} and {}",
                                  tokens_[id], known->second, id),
                      metadata.place,
                      "convert the model again; llama.cpp refuses such a file, too");
    }
    longest_token_ = std::max(longest_token_, tokens_[id].size());
  }
  kinds_ = read_token_kinds(metadata, *this);
}

TokenId Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

TokenId Vocabulary::find_byte(unsigned char byte) const {
  return find(fmt::format("<0x{:02X}>", byte));
}

}  // namespace spectralquant::text
