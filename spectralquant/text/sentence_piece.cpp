#include "spectralquant/text/sentence_piece.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <queue>

#include "spectralquant/core/error.h"
#include "spectralquant/text/space_mark.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

constexpr std::uint32_t kNoPiece = std::numeric_limits<std::uint32_t>::max();

/// A piece of the text that grows to the right; size 0: joined to the one on its left.
struct Symbol {
  std::uint32_t begin, size, previous, next;
};

/// A possible join of two neighbours, as long as they were when it was found.
struct PiecePair {
  float score;
  std::uint32_t left, right, size;
  // highest on top
  bool operator<(const PiecePair& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

/// llama.cpp takes a stray continuation byte for a character, too.
std::vector<Symbol> split_characters(std::string_view text) {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  const auto size = static_cast<std::uint32_t>(text.size());
  for (std::uint32_t at = 0; at < size;) {
    const auto index = static_cast<std::uint32_t>(symbols.size());
    const std::uint32_t length =
        std::min<std::uint32_t>(size - at, utf8_length(static_cast<unsigned char>(text[at])));
    symbols.push_back({at, length, index - 1, index + 1});  // 0 - 1 is kNoPiece
    at += length;
  }
  if (!symbols.empty()) symbols.back().next = kNoPiece;
  return symbols;
}

}  // namespace

SentencePiece::SentencePiece(const Vocabulary& vocabulary, std::vector<float> scores,
                             bool add_space_prefix)
    : vocabulary_(vocabulary), scores_(std::move(scores)), add_space_prefix_(add_space_prefix) {
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[byte] = vocabulary.find_byte(static_cast<unsigned char>(byte));
    if (byte_tokens_[byte] < 0) {
      const char letter = static_cast<char>(byte);
      byte_tokens_[byte] = vocabulary.find(std::string_view(&letter, 1));
    }
  }
}

void SentencePiece::append_bytes(std::string_view text, std::vector<TokenId>& out) const {
  for (char c : text) {
    const TokenId id = byte_tokens_[static_cast<unsigned char>(c)];
    if (id < 0) {
      throw bad_input(
          fmt::format("byte 0x{:02X} of the text has no token in the model's vocabulary",
                      static_cast<unsigned char>(c)),
          "", "convert the model again: its byte tokens are missing");
    }
    out.push_back(id);
  }
}

void SentencePiece::encode(std::string_view text, bool is_first, std::vector<TokenId>& out) const {
  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2);
  if (is_first && add_space_prefix_) escaped = kSpaceMark;
  append_marked(escaped, text);
  if (escaped.size() >= kNoPiece)
    throw bad_input(fmt::format("a text of {} bytes is too long", text.size()));
  std::vector<Symbol> symbols = split_characters(escaped);
  std::priority_queue<PiecePair> queue;
  const auto piece = [&](std::uint32_t begin, std::uint32_t size) {
    return std::string_view(escaped).substr(begin, size);
  };
  const auto consider = [&](std::uint32_t left, std::uint32_t right) {
    if (left == kNoPiece || right == kNoPiece) return;
    const std::uint32_t size = symbols[left].size + symbols[right].size;
    if (size > vocabulary_.longest_token()) return;
    if (const TokenId id = vocabulary_.find(piece(symbols[left].begin, size)); id >= 0)
      queue.push({scores_[static_cast<std::size_t>(id)], left, right, size});
  };
  for (std::uint32_t i = 1; i < symbols.size(); ++i) consider(i - 1, i);
  while (!queue.empty()) {
    const PiecePair best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[best.right];
    // outdated
    if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;
    left.size = best.size;
    right.size = 0;
    left.next = right.next;
    if (left.next != kNoPiece) symbols[left.next].previous = best.left;
    consider(left.previous, best.left);
    consider(best.left, left.next);
  }
  for (std::uint32_t i = 0; i != kNoPiece && i < symbols.size(); i = symbols[i].next) {
    const std::string_view found = piece(symbols[i].begin, symbols[i].size);
    if (const TokenId id = vocabulary_.find(found); id >= 0) {
      out.push_back(id);
    } else {
      append_bytes(found, out);  // a single character: all that was joined is a token
    }
  }
}

std::string SentencePiece::bytes_of(std::string_view token) const { return unmarked(token); }

}  // namespace spectralquant::text
