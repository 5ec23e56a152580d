#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "spectralquant/text/tokenizer.h"

namespace spectralquant::text {

/// Token texts of a model, as they stand in its file, and their ids.
///
/// Errors   Error(kBadInput) for a text that occurs twice.
/// Threads  const members may be called from any thread.
class Vocabulary {
 public:
  Vocabulary(std::vector<std::string> tokens, const std::string& place);
  Vocabulary(const Vocabulary&) = delete;

  /// Id of a token by its text, -1 if absent.
  TokenId find(std::string_view token) const;
  const std::vector<std::string>& tokens() const { return tokens_; }
  std::size_t size() const { return tokens_.size(); }
  std::size_t longest_token() const { return longest_token_; }  ///< bytes

 private:
  std::vector<std::string> tokens_;
  std::unordered_map<std::string_view, TokenId> ids_;  ///< views of tokens_
  std::size_t longest_token_ = 0;
};

}  // namespace spectralquant::text
