#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "spectralquant/gguf/metadata.h"
#include "spectralquant/text/token_kinds.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::text {

/// Token texts of a model, as they stand in its file, their ids and kinds.
///
/// Errors   Error(kBadInput) for lists that are missing or too short, a text that occurs twice.
/// Threads  const members may be called from any thread.
class Vocabulary {
 public:
  explicit Vocabulary(const gguf::Metadata& metadata);
  Vocabulary(const Vocabulary&) = delete;

  /// Id of a token by its text, -1 if absent.
  TokenId find(std::string_view token) const;
  /// Id of the token that stands for a byte, "<0x0A>"; -1 if absent.
  TokenId find_byte(unsigned char byte) const;

  const std::string& text(std::size_t id) const { return tokens_[id]; }
  TokenKind kind(std::size_t id) const { return kinds_[id]; }
  std::size_t size() const { return tokens_.size(); }
  std::size_t longest_token() const { return longest_token_; }  ///< bytes

 private:
  std::vector<std::string> tokens_;
  std::unordered_map<std::string_view, TokenId> ids_;  ///< views of tokens_
  std::size_t longest_token_ = 0;
  std::vector<TokenKind> kinds_;
};

}  // namespace spectralquant::text
