#include "spectralquant/text/bpe.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <queue>

#include "spectralquant/core/error.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

/// GPT-2's bytes_to_unicode(): printable Latin-1 stands for itself, the others follow from U+0100
/// in order.
struct ByteLetters {
  std::array<char32_t, 256> code_points;
  std::array<std::string, 256> letters;
  std::array<int, 512> bytes;  // of a code point, -1 if it is no letter

  ByteLetters() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      code_points[b] = printable ? static_cast<char32_t>(b) : next++;
      append_utf8(letters[b], code_points[b]);
      bytes[code_points[b]] = b;
    }
  }
};

const ByteLetters& byte_letters() {
  static const ByteLetters table;
  return table;
}

constexpr std::uint32_t kNoSymbol = std::numeric_limits<std::uint32_t>::max();

std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
  return std::uint64_t{left} << 32 | right;
}

/// A possible merge of the symbols at `left` and `right`, as they were when it was found.
struct SymbolPair {
  std::uint32_t rank, left, right, left_symbol, right_symbol, result;
  // lowest on top
  bool operator<(const SymbolPair& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

struct Link {
  std::uint32_t symbol, previous, next;  // symbol kNoSymbol: merged into the one on its left
};

}  // namespace

const std::string& letter_of_byte(unsigned char byte) { return byte_letters().letters[byte]; }

std::string bytes_of_letters(std::string_view letters) {
  std::string bytes;
  for (std::size_t position = 0; position < letters.size();) {
    const std::size_t start = position;
    const char32_t c = next_code_point(letters, position);
    const int byte = c < 512 ? byte_letters().bytes[c] : -1;
    if (byte >= 0) {
      bytes += static_cast<char>(byte);
    } else {
      bytes += letters.substr(start, position - start);
    }
  }
  return bytes;
}

Bpe::Bpe(const Vocabulary& vocabulary, const std::vector<std::string_view>& merges, bool is_plain)
    : vocabulary_(vocabulary), is_plain_(is_plain) {
  for (int b = 0; b < 256 && !is_plain; ++b)
    byte_symbols_[b] = symbol_of(letter_of_byte(static_cast<unsigned char>(b)));
  merges_.reserve(merges.size() * 2);
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const std::size_t space = merge.find(' ', 1);  // from 1: the left half may begin with a space
    // one text alone never comes up; llama.cpp takes such merges too
    if (space == std::string_view::npos || space + 1 == merge.size()) continue;
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    const Symbol result = symbol_of(std::string(left) + std::string(right));
    merges_.emplace(pair_key(symbol_of(left), symbol_of(right)),
                    Merge{static_cast<std::uint32_t>(rank), result});
  }
}

Bpe::Symbol Bpe::symbol_of(std::string_view text) {
  if (const TokenId id = vocabulary_.find(text); id >= 0) return static_cast<Symbol>(id);
  const auto [known, is_new] =
      other_symbols_.emplace(text, static_cast<Symbol>(vocabulary_.size() + fallbacks_.size()));
  if (is_new) fallbacks_.push_back(tokens_of_bytes(text));
  return known->second;
}

/// What llama.cpp does with a text that is no token: the token of each of its bytes (of the
/// letters, not of the text they stand for); bytes that have none vanish.
std::vector<TokenId> Bpe::tokens_of_bytes(std::string_view text) const {
  std::vector<TokenId> tokens;
  for (char byte : text) {
    const TokenId id = is_plain_ ? vocabulary_.find_byte(static_cast<unsigned char>(byte))
                                 : vocabulary_.find(std::string_view(&byte, 1));
    if (id >= 0) tokens.push_back(id);
  }
  return tokens;
}

/// The symbols a word begins as.
std::vector<Bpe::Symbol> Bpe::split(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (std::size_t at = 0; at < word.size();) {
    if (!is_plain_) {
      symbols.push_back(byte_symbols_[static_cast<unsigned char>(word[at++])]);
      continue;
    }
    const std::size_t begin = at;
    const char32_t c = next_code_point(word, at);
    const std::string_view text = word.substr(begin, at - begin);
    if (const TokenId id = vocabulary_.find(text); id >= 0) {
      symbols.push_back(static_cast<Symbol>(id));
    } else {
      const auto other = other_symbols_.find(std::string(text));
      symbols.push_back(other != other_symbols_.end() ? other->second : kCharacter | c);
    }
  }
  return symbols;
}

const Bpe::Merge* Bpe::find_merge(Symbol left, Symbol right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::append(Symbol symbol, std::vector<TokenId>& out) const {
  if (symbol < vocabulary_.size()) {
    out.push_back(static_cast<TokenId>(symbol));
  } else {
    std::string text;
    if (symbol >= kCharacter) append_utf8(text, symbol - kCharacter);
    const std::vector<TokenId> tokens =
        symbol >= kCharacter ? tokens_of_bytes(text) : fallbacks_[symbol - vocabulary_.size()];
    out.insert(out.end(), tokens.begin(), tokens.end());
  }
}

bool Bpe::encode_whole(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() > vocabulary_.longest_token())
    return false;  // a letter is never shorter than its byte
  std::string letters;
  for (char byte : word) letters += letter_of_byte(static_cast<unsigned char>(byte));
  const TokenId id = vocabulary_.find(is_plain_ ? word : letters);
  if (id >= 0) out.push_back(id);
  return id >= 0;
}

void Bpe::encode_word(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() >= kNoSymbol)
    throw bad_input(fmt::format("a word of {} bytes is too long", word.size()));
  const std::vector<Symbol> symbols = split(word);
  const auto n = static_cast<std::uint32_t>(symbols.size());
  std::vector<Link> links(n);
  std::vector<SymbolPair> storage;
  storage.reserve(n);
  std::priority_queue<SymbolPair> queue(std::less<SymbolPair>(), std::move(storage));
  for (std::uint32_t i = 0; i < n; ++i) {
    // 0 - 1 is kNoSymbol
    links[i] = {symbols[i], i - 1, i + 1};
  }
  if (n > 0) links[n - 1].next = kNoSymbol;
  const auto consider = [&](std::uint32_t left, std::uint32_t right) {
    if (left == kNoSymbol || right == kNoSymbol) return;
    if (const Merge* merge = find_merge(links[left].symbol, links[right].symbol)) {
      queue.push(
          {merge->rank, left, right, links[left].symbol, links[right].symbol, merge->result});
    }
  };
  for (std::uint32_t i = 1; i < n; ++i) consider(i - 1, i);
  while (!queue.empty()) {
    const SymbolPair best = queue.top();
    queue.pop();
    Link& left = links[best.left];
    Link& right = links[best.right];
    // outdated
    if (left.symbol != best.left_symbol || right.symbol != best.right_symbol ||
        left.next != best.right)
      continue;
    left.symbol = best.result;
    left.next = right.next;
    right.symbol = kNoSymbol;
    if (left.next != kNoSymbol) links[left.next].previous = best.left;
    consider(left.previous, best.left);
    consider(best.left, left.next);
  }
  for (std::uint32_t i = 0; n > 0 && i != kNoSymbol; i = links[i].next)
    append(links[i].symbol, out);
}

}  // namespace spectralquant::text
