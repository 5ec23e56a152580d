#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "spectralquant/text/vocabulary.h"

namespace spectralquant::text {

/// Merges of a BPE, and the merging of one word.
///
/// A word begins as one symbol for each byte, or for each character where the vocabulary is plain.
/// Of all neighbours that a merge knows, the two with the lowest rank (the leftmost among equals)
/// are joined, until none is left. O(n log n) in the length of the word.
///
/// Token texts use GPT-2's letters for bytes ("Ġ" for a space, …), or are plain UTF-8. A plain
/// character that is no token becomes its bytes, "<0x0A>".
/// A merge that is not two texts with a space between is passed over.
/// Threads  const members may be called from any thread.
class Bpe {
 public:
  /// vocabulary must outlive this.
  Bpe(const Vocabulary& vocabulary, const std::vector<std::string_view>& merges, bool is_plain);
  Bpe(const Bpe&) = delete;

  /// Appends the tokens of one word: bytes, or valid UTF-8 where the vocabulary is plain.
  void encode_word(std::string_view word, std::vector<TokenId>& out) const;

  /// Appends the token that is the whole word, if there is one.
  bool encode_whole(std::string_view word, std::vector<TokenId>& out) const;

 private:
  /// A token id; beyond them a text that only occurs in merges; from kCharacter on a character that
  /// occurs in neither.
  using Symbol = std::uint32_t;
  static constexpr Symbol kCharacter = 0x80000000;
  struct Merge {
    std::uint32_t rank;
    Symbol result;
  };
  Symbol symbol_of(std::string_view text);
  std::vector<Symbol> split(std::string_view word) const;
  std::vector<TokenId> tokens_of_bytes(std::string_view text) const;
  const Merge* find_merge(Symbol left, Symbol right) const;
  void append(Symbol symbol, std::vector<TokenId>& out) const;

  const Vocabulary& vocabulary_;
  bool is_plain_;
  std::unordered_map<std::string, Symbol> other_symbols_;
  std::vector<std::vector<TokenId>> fallbacks_;  ///< tokens of the symbols that are no tokens
  std::unordered_map<std::uint64_t, Merge> merges_;
  Symbol byte_symbols_[256];  ///< where the vocabulary is not plain
};

/// GPT-2's letter for a byte, as UTF-8.
const std::string& letter_of_byte(unsigned char byte);

/// Bytes of a text in GPT-2's letters; characters that are none stay as they are.
std::string bytes_of_letters(std::string_view letters);

}  // namespace spectralquant::text
