#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/tokenizer.h"

namespace spectralquant::text {

/// Turns the plain text between special tokens into ids: one subclass for each tokenizer model.
///
/// Threads  const members may be called from any thread.
class WordEncoder {
 public:
  virtual ~WordEncoder() = default;

  /// Appends the tokens of text, which stands at the begin of the document or behind a special
  /// token (is_first), or behind other text.
  virtual void encode(std::string_view text, bool is_first, std::vector<TokenId>& out) const = 0;

  /// The bytes that the text of an ordinary token stands for.
  virtual std::string bytes_of(std::string_view token) const = 0;
};

}  // namespace spectralquant::text
