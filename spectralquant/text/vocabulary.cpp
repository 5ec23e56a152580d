#include "spectralquant/text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/core/error.h"

namespace spectralquant::text {

Vocabulary::Vocabulary(std::vector<std::string> tokens, const std::string& place)
    : tokens_(std::move(tokens)) {
  ids_.reserve(tokens_.size());
  for (std::size_t id = 0; id < tokens_.size(); ++id) {
    const auto [known, is_new] = ids_.emplace(tokens_[id], static_cast<TokenId>(id));
    if (!is_new) {
      throw bad_input(fmt::format("token '{}' is in the vocabulary twice, as {} and {}",
                                  tokens_[id], known->second, id),
                      place, "convert the model again; llama.cpp refuses such a file, too");
    }
    longest_token_ = std::max(longest_token_, tokens_[id].size());
  }
}

TokenId Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

}  // namespace spectralquant::text
