#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "spectralquant/text/vocabulary.h"

namespace spectralquant::text {

/// Merges of a byte-level BPE, and the merging of one word.
///
/// Every byte begins as one symbol; of all neighbours that a merge knows, the one with the lowest
/// rank (the leftmost among equals) is joined, until none is left. O(n log n) in the length of the
/// word.
///
/// Token texts use GPT-2's letters for bytes ("Ġ" for a space, …).
/// Errors   Error(kBadInput) for a merge that is not two texts with a space between.
/// Threads  const members may be called from any thread.
class Bpe {
 public:
  /// vocabulary must outlive this.
  Bpe(const Vocabulary& vocabulary, const std::vector<std::string_view>& merges, bool ignore_merges,
      const std::string& place);
  Bpe(const Bpe&) = delete;

  /// Appends the tokens of one word, given as plain bytes.
  void encode_word(std::string_view word, std::vector<TokenId>& out) const;

 private:
  using Symbol = std::uint32_t;  ///< a token id, or beyond them a text that only occurs in merges
  struct Merge {
    std::uint32_t rank;
    Symbol result;
  };
  Symbol symbol_of(std::string_view text);
  const Merge* find_merge(Symbol left, Symbol right) const;
  void append(Symbol symbol, std::vector<TokenId>& out) const;

  const Vocabulary& vocabulary_;
  bool ignore_merges_;
  std::unordered_map<std::string, Symbol> other_symbols_;
  std::vector<std::vector<TokenId>> fallbacks_;  ///< tokens of the symbols that are no tokens
  std::unordered_map<std::uint64_t, Merge> merges_;
  Symbol byte_symbols_[256];
};

/// GPT-2's letter for a byte, as UTF-8.
const std::string& letter_of_byte(unsigned char byte);

/// Bytes of a text in GPT-2's letters; characters that are none stay as they are.
std::string bytes_of_letters(std::string_view letters);

}  // namespace spectralquant::text
