#include "spectralquant/text/bpe_encoder.h"

#include <unordered_map>

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
  void encode(const Bpe& bpe, std::string_view word, std::vector<TokenId>& out) {
    if (word.size() > kLongestWord) return bpe.encode_word(word, out);
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
    bpe.encode_word(word, ids_);
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
                       const PretokenizerSpec& spec, const std::string& place)
    : bpe_(vocabulary, merges, spec.ignore_merges, place), pretokenizer_(spec) {}
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

void BpeEncoder::encode(std::string_view text, bool, std::vector<TokenId>& out) const {
  std::unique_ptr<WordCache> cache = borrow_cache();
  std::string repaired;
  const std::string_view words = repair_utf8(text, repaired);
  std::size_t start = 0;
  for (std::size_t length : pretokenizer_.split(words)) {
    cache->encode(bpe_, words.substr(start, length), out);
    start += length;
  }
  give_back(std::move(cache));
}

}  // namespace spectralquant::text
