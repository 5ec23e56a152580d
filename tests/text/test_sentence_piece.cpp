#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <chrono>

#include "golden.h"
#include "spectralquant/core/error.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;

/// <unk> 0, <s> 1, </s> 2, bytes from 3, then "a", "b", "ab", "▁", "▁a" from 259.
gguf::Metadata tiny_metadata(const std::vector<float>& scores) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<std::int32_t> kinds = {kUnknown, kControl, kControl};
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    tokens.emplace_back(text);
    kinds.push_back(kByte);
  }
  std::vector<float> all(tokens.size(), 0.0f);
  for (const char* token : {"a", "b", "ab", "▁", "▁a"}) {
    tokens.emplace_back(token);
    kinds.push_back(kNormal);
  }
  all.insert(all.end(), scores.begin(), scores.end());
  gguf::Metadata metadata;
  metadata.set("tokenizer.ggml.model", gguf::Value::of_string("llama"));
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  metadata.set("tokenizer.ggml.scores", of_f32_array(all));
  metadata.set("tokenizer.ggml.token_type", of_i32_array(kinds));
  return metadata;
}
enum : TokenId { kBos = 1, kEos = 2, kBytes = 3, kA = 259, kB, kAb, kSpace, kSpaceA };

Tokenizer make(const gguf::Metadata& metadata) { return Tokenizer::from_metadata(metadata); }
const std::vector<float> kLongerFirst = {-10, -11, -1, -12, -2};

TEST(SentencePieceTest, JoinsTheHighestScoreFirst) {
  EXPECT_THAT(make(tiny_metadata(kLongerFirst)).encode("ab"), ElementsAre(kBos, kSpace, kAb));
  EXPECT_THAT(make(tiny_metadata({-10, -11, -2, -12, -1})).encode("ab"),
              ElementsAre(kBos, kSpaceA, kB));
  // the leftmost of equals
  EXPECT_THAT(make(tiny_metadata({0, 0, 0, 0, 0})).encode("ab"), ElementsAre(kBos, kSpaceA, kB));
}

TEST(SentencePieceTest, CharactersThatAreNoTokensBecomeBytes) {
  EXPECT_THAT(make(tiny_metadata(kLongerFirst)).encode("\u00e9\n\xFF", {.add_special = false}),
              ElementsAre(kSpace, kBytes + 0xC3, kBytes + 0xA9, kBytes + 0x0A, kBytes + 0xFF));
}

TEST(SentencePieceTest, PutsASpaceBeforeTextThatFollowsNoText) {
  gguf::Metadata metadata = tiny_metadata(kLongerFirst);
  const Tokenizer tokenizer = make(metadata);
  EXPECT_THAT(tokenizer.encode("</s>b</s>"), ElementsAre(kBos, kEos, kSpace, kB, kEos));
  EXPECT_THAT(tokenizer.encode("b", {.add_special = false, .follows_text = true}), ElementsAre(kB));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre(kBos));
  metadata.set("tokenizer.ggml.add_space_prefix", gguf::Value::of_bool(false));
  EXPECT_THAT(make(metadata).encode("b"), ElementsAre(kBos, kB));
}

TEST(SentencePieceTest, TakesLlamasIdsWhereKeysAreMissing) {
  gguf::Metadata metadata = tiny_metadata(kLongerFirst);
  metadata.set("tokenizer.ggml.add_eos_token", gguf::Value::of_bool(true));
  const Tokenizer tokenizer = make(metadata);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.bos(), kBos);
  EXPECT_THAT(tokenizer.encode("b"), ElementsAre(kBos, kSpace, kB, kEos));
}

TEST(SentencePieceTest, DecodesMarksAsSpacesAndBytesAsThemselves) {
  const Tokenizer tokenizer = make(tiny_metadata(kLongerFirst));
  EXPECT_EQ(tokenizer.decode({kBos, kSpaceA, kB, kSpace, kBytes + 0xC3, kBytes + 0xA9}),
            "<s> ab \u00e9");
}

TEST(SentencePieceTest, DecodeUndoesEncode) {
  gguf::Metadata metadata = tiny_metadata(kLongerFirst);
  metadata.set("tokenizer.ggml.add_space_prefix", gguf::Value::of_bool(false));
  const Tokenizer tokenizer = make(metadata);
  EXPECT_TRUE(rc::check("decode(encode(x)) == x for valid UTF-8 without marks of spaces", [&] {
    const auto code_points = *rc::gen::container<std::vector<std::uint32_t>>(rc::gen::oneOf(
        rc::gen::inRange<std::uint32_t>(0, 0x2581), rc::gen::inRange<std::uint32_t>(0x2582, 0xD800),
        rc::gen::inRange<std::uint32_t>(0xE000, 0x110000),
        rc::gen::element<std::uint32_t>('a', 'b', ' ', '\n')));
    std::string text;
    for (std::uint32_t c : code_points) append_utf8(text, c);
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text, {.add_special = false})) == text);
  }));
}

TEST(SentencePieceTest, ScoresMayBeMissingOrIntegers) {
  gguf::Metadata metadata = tiny_metadata(kLongerFirst);
  metadata.erase("tokenizer.ggml.scores");
  EXPECT_THAT(make(metadata).encode("ab"), ElementsAre(kBos, kSpaceA, kB));
  std::vector<std::int32_t> scores(264, -5);
  scores[kAb] = -1;
  metadata.set("tokenizer.ggml.scores", of_i32_array(scores));
  EXPECT_THAT(make(metadata).encode("ab"), ElementsAre(kBos, kSpace, kAb));
}

TEST(SentencePieceTest, RefusesBrokenScoresAndMissingBytes) {
  const auto refusal = [](const auto& act) -> std::string {
    try {
      act();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
    return "accepted";
  };
  gguf::Metadata metadata = tiny_metadata(kLongerFirst);
  metadata.set("tokenizer.ggml.scores", of_f32_array({1, 2}));
  EXPECT_THAT(refusal([&] { make(metadata); }), HasSubstr("has 2 entries for 264 tokens"));
  metadata.set("tokenizer.ggml.scores", gguf::Value::of_u32(1));
  EXPECT_THAT(refusal([&] { make(metadata); }), HasSubstr("no list of float32 or int32 numbers"));
  metadata = tiny_metadata(kLongerFirst);
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings({"<unk>", "<s>", "</s>", "a"}));
  EXPECT_THAT(refusal([&] { make(metadata).encode("b"); }),
              HasSubstr("byte 0xE2 of the text has no token"));
}

// 1 MB each; the limit leaves room for sanitizers on a busy machine.
TEST(SentencePieceTest, LongRunsAreNotQuadratic) {
  const Tokenizer tokenizer = make(tiny_metadata(kLongerFirst));
  for (const std::string unit : {" ", "a", "ab", "\n", "\u6f22", "</s>"}) {
    std::string text;
    while (text.size() < std::size_t{1} << 20) text += unit;
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(tokenizer.encode(text).empty());
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << unit;
  }
}

}  // namespace
}  // namespace spectralquant::text
