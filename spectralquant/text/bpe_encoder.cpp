#include "spectralquant/text/bpe_encoder.h"

#include <unordered_map>

#include "spectralquant/text/space_mark.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

/// Each bad byte becomes U+FFFD; returns text itself when there is nothing to do.
std::string_view repair_utf8(std::string_view text, std::string& storage) {
  if (find_invalid_utf8(text) == std::string_view::npos) return text;
  storage.clear();
  for (std::size_t position = 0; position < text.size();)
    append_utf8(storage, next_code_point(text, position));
  return storage;
}

}  // namespace

/// Words already seen and their tokens; borrowed by one encode() at a time and kept for the next.
class BpeEncoder::WordCache {
 public:
  void encode(const BpeEncoder& encoder, std::string_view word, std::vector<TokenId>& out) {
    if (word.size() > kLongestWord) return encoder.encode_word(word, out);
    if (const auto known = spans_.find(word); known != spans_.end()) {
      const Span span = known->second;
      out.insert(out.end(), ids_.begin() + span.first, ids_.begin() + span.first + span.count);
      return;
    }
    if (spans_.size() >= kMostWords) {
      spans_.clear();
      ids_.clear();
    }
    const std::size_t first = ids_.size();
    encoder.encode_word(word, ids_);
    spans_.emplace(word, Span{static_cast<std::uint32_t>(first),
                              static_cast<std::uint32_t>(ids_.size() - first)});
    out.insert(out.end(), ids_.begin() + first, ids_.end());
  }

 private:
  // 96 bytes: longer words hardly ever come twice. 1 << 17 words: some 15 MB, the words of a large
  // corpus that matter.
  static constexpr std::size_t kLongestWord = 96, kMostWords = std::size_t{1} << 17;
  struct Span {
    std::uint32_t first, count;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  std::unordered_map<std::string, Span, Hash, std::equal_to<>> spans_;
  std::vector<TokenId> ids_;
};

BpeEncoder::BpeEncoder(const Vocabulary& vocabulary, const std::vector<std::string_view>& merges,
                       const PretokenizerSpec& spec)
    : spec_(spec), bpe_(vocabulary, merges, spec.is_plain), pretokenizer_(spec) {}
BpeEncoder::~BpeEncoder() = default;

std::unique_ptr<BpeEncoder::WordCache> BpeEncoder::borrow_cache() const {
  std::lock_guard lock(mutex_);
  if (idle_caches_.empty()) return std::make_unique<WordCache>();
  auto cache = std::move(idle_caches_.back());
  idle_caches_.pop_back();
  return cache;
}

void BpeEncoder::give_back(std::unique_ptr<WordCache> cache) const {
  std::lock_guard lock(mutex_);
  idle_caches_.push_back(std::move(cache));
}

std::string BpeEncoder::bytes_of(std::string_view token) const {
  return spec_.is_plain ? unmarked(token) : bytes_of_letters(token);
}

void BpeEncoder::encode_word(std::string_view word, std::vector<TokenId>& out) const {
  const bool may_be_whole =
      spec_.ignore_merges ||
      (spec_.keeps_line_ends && word.find_first_not_of('\n') == std::string_view::npos);
  if (!may_be_whole || !bpe_.encode_whole(word, out)) bpe_.encode_word(word, out);
}

void BpeEncoder::encode(std::string_view text, bool, std::vector<TokenId>& out) const {
  std::unique_ptr<WordCache> cache = borrow_cache();
  std::string marked, repaired;
  if (spec_.is_plain) append_marked(marked, text);
  const std::string_view words = repair_utf8(spec_.is_plain ? marked : text, repaired);
  std::size_t start = 0;
  for (std::size_t length : pretokenizer_.split(words)) {
    cache->encode(*this, words.substr(start, length), out);
    start += length;
  }
  give_back(std::move(cache));
}

}  // namespace spectralquant::text
