#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/evaluate/suite.h"

namespace spectralquant::evaluate {

/// A piece of running text and where it comes from.
struct Passage {
  std::string place, text;
  std::int64_t document = 0;
  std::string source;  ///< what the corpus says of it: its field "source" or "kind"
};

/// Texts of a suite's scored sequences, without the model's markers.
std::vector<Passage> passages_of(const Suite& suite, const text::Tokenizer& tokenizer);
/// Documents of a corpus, without the model's markers.
std::vector<Passage> passages_of(const text::Corpus& corpus, const text::Tokenizer& tokenizer);

/// How a suite stands to a calibration text.
enum class Seen {
  kCalibratedOn,  ///< near-duplicates hold at least kLeakedShare of the suite's words
  kSameSource,    ///< no duplicates, but a classifier can hardly tell the two texts apart
  kNever,
};
/// "calibrated on", "same source as calibration", "never seen"
std::string_view name_of(Seen seen);

/// A passage of the suite that stands in the calibration text, word for word or lightly edited.
struct Match {
  std::string suite_place, calibration_place;
  /// share of its runs of kShingleWords words that the calibration document holds
  double similarity = 0;
  std::string text;  ///< its beginning
};

struct Overlap {
  std::string calibration, suite;
  Seen seen = Seen::kNever;
  /// share of the suite's distinct runs of kNgramWords words that the calibration text holds
  double shared_ngrams = 0;
  std::int64_t near_duplicates = 0;  ///< passages with a Match
  double near_duplicate_share = 0;   ///< their share of the suite's words
  /// see evaluate/source.h: the lowest of the whole calibration text and its parts by source
  double source_auc = 1;
  bool has_source_auc = false;  ///< false with too little text to tell
  std::vector<Match> matches;   ///< most similar first, at most kMaxMatches
};

constexpr std::size_t kNgramWords = 8, kShingleWords = 5, kMaxMatches = 20;
// An edit breaks the shingles of its word: with every fifth word changed, .8^5 = .33 of them are
// left. Unrelated texts of one language share a few percent.
constexpr double kNearDuplicate = 0.3;
// One document of a hundred.
constexpr double kLeakedShare = 0.01;

/// Words are runs of letters and digits in lower case; in scripts without spaces every character is
/// one.
Overlap find_overlap(const std::string& calibration_name, const std::vector<Passage>& calibration,
                     const std::string& suite_name, const std::vector<Passage>& suite);

/// Hashes of a text's words.
std::vector<std::uint64_t> words_of(std::string_view text);

}  // namespace spectralquant::evaluate
