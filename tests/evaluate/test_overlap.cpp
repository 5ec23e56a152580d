// What calibration text and suites share: exact, edited, of one source, or nothing.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/source.h"

namespace spectralquant::evaluate {
namespace {

using testing::HasSubstr;

/// `n` documents of `words` words each; vocabulary and habits are those of `author`.
std::vector<Passage> written_by(int author, std::size_t n, std::size_t words, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Passage> out;
  for (std::size_t d = 0; d < n; ++d) {
    std::string text;
    for (std::size_t w = 0; w < words; ++w) {
      // A few words are common; half of all words are the author's own.
      const auto rank = static_cast<std::size_t>(std::exp((random() % 1000) / 1000.0 * 7));
      text += random() % 2 ? fmt::format("w{}a{} ", rank, author) : fmt::format("w{} ", rank);
    }
    out.push_back({fmt::format("text:{}", d + 1), text, static_cast<std::int64_t>(d), {}});
  }
  return out;
}

/// Every n-th word replaced.
std::string edited(const std::string& text, std::size_t n) {
  std::istringstream in(text);
  std::string out, word;
  for (std::size_t i = 1; in >> word; ++i)
    out += fmt::format("{} ", i % n ? word : fmt::format("other{}", i));
  return out;
}

TEST(WordsTest, AreLettersAndDigitsWhateverStandsBetweenThem) {
  EXPECT_EQ(words_of("The sea, the SEA!"), words_of("the\nsea -- The sea"));
  EXPECT_EQ(words_of("").size(), 0u);
  EXPECT_EQ(words_of("a1 b2").size(), 2u);
  EXPECT_NE(words_of("sea"), words_of("see"));
  EXPECT_EQ(words_of("Straße über").size(), 2u);
}

TEST(WordsTest, ScriptsWithoutSpacesAreCutByCharacter) {
  EXPECT_EQ(words_of("我喜欢海").size(), 4u);
  EXPECT_EQ(words_of("海sea海").size(), 3u);
  EXPECT_EQ(words_of("한국어 말").size(), 2u);
}

TEST(OverlapTest, AnotherAuthorsTextWasNeverSeen) {
  const auto overlap =
      find_overlap("calibration", written_by(1, 40, 150, 1), "suite", written_by(2, 40, 150, 2));
  EXPECT_EQ(overlap.seen, Seen::kNever);
  EXPECT_EQ(overlap.near_duplicates, 0);
  EXPECT_LT(overlap.shared_ngrams, 0.001);
  ASSERT_TRUE(overlap.has_source_auc);
  EXPECT_GT(overlap.source_auc, 0.95);
}

TEST(OverlapTest, OtherTextOfOneAuthorIsOfTheSameSource) {
  const auto overlap =
      find_overlap("calibration", written_by(1, 40, 150, 1), "suite", written_by(1, 40, 150, 2));
  EXPECT_EQ(overlap.seen, Seen::kSameSource);
  EXPECT_EQ(overlap.near_duplicates, 0);
  EXPECT_NEAR(overlap.source_auc, 0.5, 0.2);
}

TEST(OverlapTest, OneOfSeveralSourcesIsFound) {
  auto calibration = written_by(1, 30, 150, 1);
  for (auto& p : calibration) p.source = "first";
  for (auto& p : written_by(3, 120, 150, 4))
    calibration.push_back({p.place, p.text, 30 + p.document, "second"});
  const auto suite = written_by(1, 30, 150, 2);
  EXPECT_GT(source_auc(calibration, suite).value(), kSameSourceAuc);
  EXPECT_EQ(find_overlap("calibration", calibration, "suite", suite).seen, Seen::kSameSource);
}

TEST(OverlapTest, TooLittleTextTellsNoSource) {
  const auto overlap =
      find_overlap("calibration", written_by(1, 40, 150, 1), "suite", written_by(1, 3, 150, 2));
  EXPECT_FALSE(overlap.has_source_auc);
  EXPECT_EQ(overlap.seen, Seen::kNever);
}

TEST(OverlapTest, ExactAndEditedCopiesAreFoundAndListed) {
  const auto calibration = written_by(1, 40, 150, 1);
  auto suite = written_by(2, 40, 150, 2);
  suite[7].text = calibration[31].text;
  suite[9].text = edited(calibration[4].text, 9);
  suite[11].text =
      fmt::format("An introduction of its own. {}", calibration[5].text.substr(0, 600));
  const auto overlap = find_overlap("calibration", calibration, "suite", suite);
  EXPECT_EQ(overlap.seen, Seen::kCalibratedOn);
  EXPECT_EQ(overlap.near_duplicates, 3);
  EXPECT_NEAR(overlap.near_duplicate_share, 3 / 40.0, 0.01);
  ASSERT_EQ(overlap.matches.size(), 3u);
  EXPECT_EQ(overlap.matches[0].suite_place, "text:8");
  EXPECT_EQ(overlap.matches[0].calibration_place, "text:32");
  EXPECT_EQ(overlap.matches[0].similarity, 1.0);
  EXPECT_EQ(overlap.matches[2].suite_place, "text:10");
  EXPECT_EQ(overlap.matches[2].calibration_place, "text:5");
  EXPECT_GT(overlap.matches[2].similarity, kNearDuplicate);
  EXPECT_THAT(calibration[31].text, HasSubstr(overlap.matches[0].text.substr(0, 100)));
}

TEST(OverlapTest, ManyMatchesAreCountedButNotAllListed) {
  const auto text = written_by(1, 60, 60, 1);
  const auto overlap = find_overlap("calibration", text, "suite", text);
  EXPECT_EQ(overlap.near_duplicates, 60);
  EXPECT_EQ(overlap.matches.size(), kMaxMatches);
  EXPECT_DOUBLE_EQ(overlap.shared_ngrams, 1.0);
}

TEST(OverlapTest, EmptyTextsShareNothing) {
  const auto overlap = find_overlap("calibration", {}, "suite", {});
  EXPECT_EQ(overlap.shared_ngrams, 0);
  EXPECT_EQ(overlap.seen, Seen::kNever);
}

/// The shipped texts, as they are and with a leak made on purpose.
class ShippedTextTest : public SuiteFixture {
 protected:
  ShippedTextTest()
      : file_(gguf::File::open(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf")),
        words_(text::Tokenizer::from_metadata(file_.metadata())) {}
  text::Corpus corpus(const std::string& path) const {
    return text::load_corpus({path}, text::ChatFormat::from_metadata(file_.metadata()));
  }
  std::string shipped(const std::string& name) const { return SQ_SOURCE_DIR "/suites/" + name; }
  Overlap with(const std::string& suite_file) {
    const auto suite = load_suite(parse_suite("s=" + suite_file), words_,
                                  text::ChatFormat::from_metadata(file_.metadata()));
    return find_overlap("calibration", passages_of(corpus(shipped("calibration.jsonl")), words_),
                        "s", passages_of(suite, words_));
  }

  gguf::File file_;
  text::Tokenizer words_;
};

TEST_F(ShippedTextTest, NoSuiteHoldsCalibrationText) {
  for (const auto* name : {"heldout120.jsonl", "convergence60.jsonl"}) {
    const auto overlap = with(shipped(name));
    EXPECT_EQ(overlap.near_duplicates, 0) << name;
    EXPECT_EQ(overlap.shared_ngrams, 0) << name;
    EXPECT_NE(overlap.seen, Seen::kCalibratedOn) << name;
  }
}

TEST_F(ShippedTextTest, ALeakIsCaught) {
  const auto clean = corpus(shipped("heldout120.jsonl")),
             calibration = corpus(shipped("calibration.jsonl"));
  std::string lines;
  const auto add = [&](const std::string& text) {
    lines += nlohmann::json{{"text", text}}.dump() + "\n";
  };
  for (std::size_t i = 0; i < 60; ++i) add(clean.documents[i].text);
  for (std::size_t i : {3, 40, 77}) add(calibration.documents[i].text);
  for (std::size_t i : {11, 58}) add(edited(calibration.documents[i].text, 10));
  spew(path("leaked.jsonl"), lines);
  const auto overlap = with(path("leaked.jsonl"));
  EXPECT_EQ(overlap.seen, Seen::kCalibratedOn);
  EXPECT_EQ(overlap.near_duplicates, 5);
  for (const auto& match : overlap.matches)
    EXPECT_THAT(match.calibration_place, HasSubstr("calibration.jsonl:"));
}

}  // namespace
}  // namespace spectralquant::evaluate
