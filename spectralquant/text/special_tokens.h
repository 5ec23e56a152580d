#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/tokenizer.h"

namespace spectralquant::text {

/// A token that is looked for in the raw text, before anything else.
struct SpecialToken {
  TokenId id = -1;
  std::string text;
  /// control and unknown tokens; user-defined ones are always found
  bool only_when_parsing = true;
  bool strip_left = false;   ///< white space before it belongs to it
  bool strip_right = false;  ///< white space behind it belongs to it
};

/// A piece of the text: a special token, or text between two (id -1).
struct Fragment {
  TokenId id = -1;
  std::string_view text;
};

/// Finds special tokens in text: the longest first, each from left to right in what the longer ones
/// left over.
///
/// Threads  const members may be called from any thread.
class SpecialTokens {
 public:
  explicit SpecialTokens(std::vector<SpecialToken> tokens);
  std::vector<Fragment> partition(std::string_view text, bool parse_special) const;

 private:
  std::vector<std::size_t> occurring(std::string_view text, bool parse_special) const;

  std::vector<SpecialToken> tokens_;             ///< longest first
  std::vector<std::size_t> by_first_byte_[256];  ///< indices into tokens_
};

}  // namespace spectralquant::text
