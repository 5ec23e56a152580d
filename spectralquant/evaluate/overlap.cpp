#include "spectralquant/evaluate/overlap.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <unordered_set>
#include <utility>

#include "spectralquant/evaluate/source.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::evaluate {
namespace {

constexpr std::size_t kExcerptBytes = 160;

/// FNV-1a of code points. Only ever compared within one run.
struct WordHash {
  std::uint64_t value = 0xcbf29ce484222325;
  void add(std::uint64_t x) { value = (value ^ x) * 0x100000001b3; }
};

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const auto kind = text::class_of(c);
  return kind == text::CharClass::kLetter || kind == text::CharClass::kNumber ||
         kind == text::CharClass::kMark;
}

/// Scripts whose words are not set apart by spaces: South-East Asian, kana, Han.
bool stands_alone(char32_t c) {
  return (c >= 0x0E00 && c <= 0x0EFF) || (c >= 0x1000 && c <= 0x109F) ||
         (c >= 0x1780 && c <= 0x17FF) || (c >= 0x3040 && c <= 0x30FF) ||
         (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x20000 && c <= 0x3FFFF);
}

char32_t lowered(char32_t c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

/// Hashes of the distinct runs of n words, ascending.
std::vector<std::uint64_t> runs_of(const std::vector<std::uint64_t>& words, std::size_t n) {
  std::vector<std::uint64_t> runs;
  for (std::size_t i = 0; i + n <= words.size(); ++i) {
    WordHash hash;
    for (std::size_t k = 0; k < n; ++k) hash.add(words[i + k]);
    runs.push_back(hash.value);
  }
  std::sort(runs.begin(), runs.end());
  runs.erase(std::unique(runs.begin(), runs.end()), runs.end());
  return runs;
}

/// Which documents hold a run of words.
class RunIndex {
 public:
  void add(const std::vector<std::uint64_t>& runs, std::uint32_t document) {
    for (auto run : runs) entries_.emplace_back(run, document);
  }
  void finish() { std::sort(entries_.begin(), entries_.end()); }

  template <typename Visit>
  bool visit(std::uint64_t run, const Visit& visit) const {
    auto at = std::lower_bound(entries_.begin(), entries_.end(), std::pair(run, std::uint32_t{0}));
    const bool found = at != entries_.end() && at->first == run;
    for (; at != entries_.end() && at->first == run; ++at) visit(at->second);
    return found;
  }

 private:
  std::vector<std::pair<std::uint64_t, std::uint32_t>> entries_;
};

std::string beginning_of(const std::string& text) {
  std::string out;
  for (char c : text.substr(0, kExcerptBytes)) out += c == '\n' || c == '\t' ? ' ' : c;
  if (const auto broken = text::find_invalid_utf8(out); broken != std::string::npos)
    out.resize(broken);
  return out + (text.size() > kExcerptBytes ? " …" : "");
}

/// Text of tokens that are no markers; a marker parts words.
std::string text_of(const std::vector<text::TokenId>& tokens, const text::Tokenizer& tokenizer) {
  std::string out;
  std::vector<text::TokenId> run;
  const auto flush = [&] {
    if (!out.empty()) out += '\n';
    out += tokenizer.decode(run);
    run.clear();
  };
  for (auto t : tokens) {
    if (!tokenizer.is_special(t))
      run.push_back(t);
    else if (!run.empty())
      flush();
  }
  if (!run.empty()) flush();
  return out;
}

}  // namespace

std::vector<std::uint64_t> words_of(std::string_view text) {
  std::vector<std::uint64_t> words;
  WordHash hash;
  bool open = false;
  const auto close = [&] {
    if (open) words.push_back(hash.value);
    hash = {};
    open = false;
  };
  for (std::size_t position = 0; position < text.size();) {
    const char32_t c = text::next_code_point(text, position);
    if (!is_word(c) || stands_alone(c)) close();
    if (!is_word(c)) continue;
    hash.add(lowered(c));
    open = true;
    if (stands_alone(c)) close();
  }
  close();
  return words;
}

std::vector<Passage> passages_of(const Suite& suite, const text::Tokenizer& tokenizer) {
  std::vector<Passage> out;
  // Windows run through one text: neighbours share their subject.
  const bool by_document = suite.spec.protocol == Protocol::kDocuments;
  for (const auto& item : suite.items)
    out.push_back(
        {item.place, text_of(item.tokens, tokenizer), by_document ? item.document : 0, {}});
  return out;
}

std::vector<Passage> passages_of(const text::Corpus& corpus, const text::Tokenizer& tokenizer) {
  std::vector<Passage> out;
  for (const auto& tokens : text::encode_documents(corpus, tokenizer))
    out.push_back({corpus.documents[out.size()].origin, text_of(tokens, tokenizer),
                   static_cast<std::int64_t>(out.size()), corpus.documents[out.size()].source});
  return out;
}

std::string_view name_of(Seen seen) {
  switch (seen) {
    case Seen::kCalibratedOn:
      return "calibrated on";
    case Seen::kSameSource:
      return "same source as calibration";
    case Seen::kNever:
      return "never seen";
  }
  return "";
}

Overlap find_overlap(const std::string& calibration_name, const std::vector<Passage>& calibration,
                     const std::string& suite_name, const std::vector<Passage>& suite) {
  Overlap out;
  out.calibration = calibration_name;
  out.suite = suite_name;
  RunIndex shingles, ngrams;
  for (std::size_t d = 0; d < calibration.size(); ++d) {
    const auto words = words_of(calibration[d].text);
    shingles.add(runs_of(words, kShingleWords), static_cast<std::uint32_t>(d));
    ngrams.add(runs_of(words, kNgramWords), static_cast<std::uint32_t>(d));
  }
  shingles.finish();
  ngrams.finish();

  std::unordered_set<std::uint64_t> distinct, shared;
  std::size_t n_words = 0, n_words_known = 0;
  for (const auto& passage : suite) {
    const auto words = words_of(passage.text);
    n_words += words.size();
    for (auto run : runs_of(words, kNgramWords))
      if (distinct.insert(run).second && ngrams.visit(run, [](auto) {})) shared.insert(run);
    const auto own = runs_of(words, kShingleWords);
    if (own.size() < kNgramWords) continue;      // a line or less: common phrases only
    std::map<std::uint32_t, std::size_t> found;  // by calibration document
    for (auto run : own) shingles.visit(run, [&](auto document) { ++found[document]; });
    const auto most =
        std::max_element(found.begin(), found.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (most == found.end()) continue;
    const double similarity = static_cast<double>(most->second) / static_cast<double>(own.size());
    if (similarity < kNearDuplicate) continue;
    ++out.near_duplicates;
    n_words_known += words.size();
    out.matches.push_back(
        {passage.place, calibration[most->first].place, similarity, beginning_of(passage.text)});
  }
  std::stable_sort(out.matches.begin(), out.matches.end(),
                   [](const Match& a, const Match& b) { return a.similarity > b.similarity; });
  if (out.matches.size() > kMaxMatches) out.matches.resize(kMaxMatches);
  if (!distinct.empty())
    out.shared_ngrams = static_cast<double>(shared.size()) / static_cast<double>(distinct.size());
  if (n_words)
    out.near_duplicate_share = static_cast<double>(n_words_known) / static_cast<double>(n_words);

  if (const auto auc = closest_source_auc(calibration, suite)) {
    out.source_auc = *auc;
    out.has_source_auc = true;
  }
  if (out.near_duplicate_share >= kLeakedShare)
    out.seen = Seen::kCalibratedOn;
  else if (out.has_source_auc && out.source_auc < kSameSourceAuc)
    out.seen = Seen::kSameSource;
  return out;
}

}  // namespace spectralquant::evaluate
