#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <sstream>
#include <thread>

#include "golden.h"
#include "spectralquant/core/error.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

using testing::HasSubstr;

const Tokenizer& nano() {
  static const Tokenizer tokenizer = Tokenizer::from_metadata(nano_metadata());
  return tokenizer;
}

/// What from_metadata() says about nano's metadata after a change.
std::string refusal(const std::function<void(gguf::Metadata&)>& change) {
  gguf::Metadata metadata = nano_metadata();
  change(metadata);
  try {
    Tokenizer::from_metadata(metadata);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "accepted";
}

double seconds_to_encode(const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(nano().decode(nano().encode(text)), text);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(TokenizerTest, KnowsItsVocabulary) {
  EXPECT_EQ(nano().vocab_size(), 4096u);
  EXPECT_EQ(nano().bos(), -1);
  EXPECT_EQ(nano().eos(), 0);
  EXPECT_FALSE(nano().adds_bos());
  EXPECT_EQ(nano().find("<|im_start|>"), 1);
  EXPECT_EQ(nano().find("no such token"), -1);
  EXPECT_TRUE(nano().is_special(1));
  EXPECT_FALSE(nano().is_special(261));
  EXPECT_FALSE(nano().is_special(-1));
  EXPECT_FALSE(nano().is_special(4096));
}

TEST(TokenizerTest, AddsAndLeavesOutSpecialTokensAsAsked) {
  gguf::Metadata metadata = nano_metadata();
  metadata.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(1));
  metadata.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(true));
  metadata.set("tokenizer.ggml.add_eos_token", gguf::Value::of_bool(true));
  const Tokenizer tokenizer = Tokenizer::from_metadata(metadata);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("a"), (std::vector<TokenId>{1, 67, 0}));
  EXPECT_EQ(tokenizer.encode("a", {.add_special = false}), (std::vector<TokenId>{67}));
  EXPECT_EQ(tokenizer.encode(""), (std::vector<TokenId>{1, 0}));
  EXPECT_TRUE(nano().encode("").empty());
}

TEST(TokenizerTest, DecodesSpecialTokensAsTheirText) {
  EXPECT_EQ(nano().decode({1, 67, 2}), "<|im_start|>a<|im_end|>");
  EXPECT_THROW(nano().decode({4096}), Error);
  EXPECT_THROW(nano().decode({-1}), Error);
}

TEST(TokenizerTest, BadBytesComeBackAsReplacementCharacters) {
  EXPECT_EQ(nano().decode(nano().encode("a\xFF\xE2\x82z")), "a\uFFFD\uFFFD\uFFFDz");
}

TEST(TokenizerTest, DecodeUndoesEncode) {
  EXPECT_TRUE(rc::check("decode(encode(x)) == x for valid UTF-8", [] {
    const auto code_points = *rc::gen::container<std::vector<std::uint32_t>>(rc::gen::oneOf(
        rc::gen::inRange<std::uint32_t>(0, 0x80), rc::gen::inRange<std::uint32_t>(0, 0x800),
        rc::gen::inRange<std::uint32_t>(0x800, 0xD800),
        rc::gen::inRange<std::uint32_t>(0xE000, 0x110000),
        rc::gen::element<std::uint32_t>(' ', '\n', '\r', '\'', '<', '|', 'a', 'Z', '7', 0x301,
                                        0x200D, 0x1F469)));
    std::string text;
    for (std::uint32_t c : code_points) append_utf8(text, c);
    RC_ASSERT(nano().decode(nano().encode(text)) == text);
    RC_ASSERT(nano().decode(nano().encode(text, {.add_special = false, .parse_special = false})) ==
              text);
  }));
}

TEST(TokenizerTest, MayBeSharedByThreads) {
  const std::string text =
      "Threads share one tokenizer and its 12345 words, words, words. 日本語 <|im_end|>\n";
  const std::vector<TokenId> expected = nano().encode(text);
  const Tokenizer shared = Tokenizer::from_metadata(nano_metadata());
  std::vector<std::thread> threads;
  std::atomic<int> n_different = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) n_different += shared.encode(text) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_different, 0);
}

// A quadratic tokenizer needs minutes for these; the limit leaves room for sanitizers on a busy
// machine.
TEST(TokenizerTest, LongRunsAreNotQuadratic) {
  constexpr std::size_t kSize = 1 << 20;
  for (const std::string unit :
       {" ", "\n", " \n", "a", "ab", "\u00e9", "\u6f22", "7", "!", "<", "<|im_start|>", "'"}) {
    std::string text;
    while (text.size() < kSize) text += unit;
    EXPECT_LT(seconds_to_encode(text), 20) << "1 MB of " << unit;
  }
}

TEST(TokenizerErrorTest, NamesAnUnsupportedModel) {
  const auto with_model = [](const char* model) {
    return refusal(
        [=](gguf::Metadata& m) { m.set("tokenizer.ggml.model", gguf::Value::of_string(model)); });
  };
  EXPECT_THAT(with_model("bert"), HasSubstr("tokenizer model 'bert' (WordPiece) is not supported"));
  EXPECT_THAT(with_model("t5"), HasSubstr("'t5' (Unigram) is not supported"));
  EXPECT_THAT(with_model("t5"), HasSubstr("or llama (SentencePiece)"));
  EXPECT_THAT(with_model("rwkv"), HasSubstr("'rwkv' is not supported"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) { m.erase("tokenizer.ggml.model"); }),
              HasSubstr("tokenizer.ggml.model"));
}

TEST(TokenizerErrorTest, NamesAnUnsupportedPretokenizerAndTheSupportedOnes) {
  const std::string text = refusal(
      [](gguf::Metadata& m) { m.set("tokenizer.ggml.pre", gguf::Value::of_string("mmbert")); });
  EXPECT_THAT(text, HasSubstr("pre-tokenizer 'mmbert' is not supported"));
  for (const char* name : {"qwen2", "qwen35", "gpt-2", "llama-bpe", "llama3", "llama-v3"})
    EXPECT_THAT(text, HasSubstr(name));
}

TEST(TokenizerErrorTest, RefusesMissingOrBrokenLists) {
  EXPECT_THAT(refusal([](gguf::Metadata& m) { m.erase("tokenizer.ggml.tokens"); }),
              HasSubstr("tokenizer.ggml.tokens is missing"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) { m.erase("tokenizer.ggml.merges"); }),
              HasSubstr("tokenizer.ggml.merges is missing"));
  EXPECT_THAT(
      refusal([](gguf::Metadata& m) { m.set("tokenizer.ggml.merges", gguf::Value::of_u32(1)); }),
      HasSubstr("no list of texts"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) {
                m.set("tokenizer.ggml.token_type", of_i32_array({1, 1}));
              }),
              HasSubstr("2 entries for 4096 tokens"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) {
                m.set("tokenizer.ggml.tokens", gguf::Value::of_strings({"a", "b", "a"}));
              }),
              HasSubstr("token 'a' is in the vocabulary twice, as 0 and 2"));
}

TEST(TokenizerErrorTest, RefusesABosThatIsAddedButNotThere) {
  EXPECT_THAT(refusal([](gguf::Metadata& m) {
                m.set("tokenizer.ggml.pre", gguf::Value::of_string("glm4"));
                m.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(true));
              }),
              HasSubstr("tokenizer.ggml.bos_token_id is not set"));
}

/// Every name of a pre-tokenizer that llama.cpp 0.7.0 knows, but for encoders' own.
TEST(TokenizerTest, TakesTheFlagsOfEachPretokenizer) {
  struct Expected {
    const char* names;
    bool adds_bos, keeps_whole_words;
  };
  for (const Expected& expected :
       {Expected{"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano "
                 "tekken",
                 true, true},
        {"glm4 glm5 minicpm5 youtu granite-embed-multi-97m", false, true},
        {"chameleon", true, false},
        {"default deepseek-llm deepseek-coder deepseek-v3 spark2_5 falcon mpt starcoder gpt-2 "
         "phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jais-2 "
         "jina-v1-en jina-v2-code roberta-bpe refact command-r qwen2 deepseek-r1-qwen kormo "
         "f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe poro-chat chatglm-bpe viking jais smollm "
         "codeshell bloom gpt3-finnish exaone exaone4 exaone-moe minerva-7b megrez gpt-4o llama4 "
         "kanana2 talkie tiny_aya cohere2moe superbpe trillion granite-docling bailingmoe "
         "bailingmoe2 llada-moe seed-coder hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka "
         "grok-2 afmoe laguna minimax-m2 solar-open mellum2 k2-horizon",
         false, false}}) {
    std::istringstream names(expected.names);
    for (std::string name; names >> name;) {
      gguf::Metadata metadata;
      metadata.set("tokenizer.ggml.model", gguf::Value::of_string("gpt2"));
      metadata.set("tokenizer.ggml.pre", gguf::Value::of_string(name));
      metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings({"a", "b", "c", "abc", "<s>"}));
      metadata.set("tokenizer.ggml.merges", gguf::Value::of_strings({"x y"}));
      metadata.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(4));
      std::vector<TokenId> ids = {0, 1, 2};
      if (expected.keeps_whole_words) ids = {3};
      if (expected.adds_bos) ids.insert(ids.begin(), 4);
      EXPECT_EQ(Tokenizer::from_metadata(metadata).encode("abc"), ids) << name;
    }
  }
}

TEST(TokenizerTest, KimiNeedsNoMerges) {
  gguf::Metadata metadata = nano_metadata();
  metadata.erase("tokenizer.ggml.merges");
  metadata.set("tokenizer.ggml.pre", gguf::Value::of_string("kimi-k2"));
  EXPECT_EQ(Tokenizer::from_metadata(metadata).encode("ab").size(), 2u);
}

TEST(TokenizerTest, Gemma4NamesItsBosItself) {
  gguf::Metadata metadata = nano_metadata();
  metadata.set("tokenizer.ggml.model", gguf::Value::of_string("gemma4"));
  EXPECT_THAT(refusal([](gguf::Metadata& m) {
                m.set("tokenizer.ggml.model", gguf::Value::of_string("gemma4"));
              }),
              HasSubstr("tokenizer.ggml.bos_token_id is not set"));
  metadata.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(false));
  metadata.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(1));
  EXPECT_TRUE(Tokenizer::from_metadata(metadata).adds_bos());
}

TEST(TokenizerTest, TokensOfSomeEncodersSwallowTheSpaceBefore) {
  gguf::Metadata metadata;
  metadata.set("tokenizer.ggml.model", gguf::Value::of_string("gpt2"));
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings({"a", "Ġ", "<mask>", "[MASK]"}));
  metadata.set("tokenizer.ggml.merges", gguf::Value::of_strings({"a a"}));
  metadata.set("tokenizer.ggml.token_type", of_i32_array({1, 1, 4, 4}));
  const std::string text = "a <mask> [MASK] a";
  const auto ids = [&](const char* pre, const char* name) {
    metadata.set("tokenizer.ggml.pre", gguf::Value::of_string(pre));
    metadata.set("general.name", gguf::Value::of_string(name));
    return Tokenizer::from_metadata(metadata).encode(text);
  };
  EXPECT_EQ(ids("gpt-2", ""), (std::vector<TokenId>{0, 1, 2, 1, 3, 1, 0}));
  EXPECT_EQ(ids("jina-v2-de", ""), (std::vector<TokenId>{0, 2, 1, 3, 1, 0}));
  EXPECT_EQ(ids("modern-bert", "Modern-BERT"), (std::vector<TokenId>{0, 1, 2, 3, 1, 0}));
}

// A cut that counts a run at each of its characters needs hours for these.
TEST(TokenizerTest, LongRunsOfEveryPretokenizerAreNotQuadratic) {
  for (const auto& [pre, unit] :
       std::vector<std::pair<const char*, const char*>>{{"superbpe", "7"},
                                                        {"tiny_aya", "7"},
                                                        {"afmoe", "a"},
                                                        {"deepseek-llm", " "},
                                                        {"exaone-moe", "a "},
                                                        {"gemma4", "ab"}}) {
    gguf::Metadata metadata = nano_metadata();
    metadata.set("tokenizer.ggml.pre", gguf::Value::of_string(pre));
    metadata.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(1));
    const Tokenizer tokenizer = Tokenizer::from_metadata(metadata);
    std::string text;
    while (text.size() < std::size_t{1} << 20) text += unit;
    const auto start = std::chrono::steady_clock::now();
    tokenizer.encode(text + "x");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << pre << unit;
  }
}

TEST(TokenizerTest, WorksWithAVocabularyThatLacksBytes) {
  gguf::Metadata metadata;
  metadata.set("tokenizer.ggml.model", gguf::Value::of_string("gpt2"));
  metadata.set("tokenizer.ggml.pre", gguf::Value::of_string("gpt-2"));
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings({"a", "b", "ab"}));
  // a merge of one text never comes up
  metadata.set("tokenizer.ggml.merges", gguf::Value::of_strings({"", "ab", "a ", "a b"}));
  // as in llama.cpp, the rest vanishes
  EXPECT_EQ(Tokenizer::from_metadata(metadata).encode("cab\xC3\xA9"), (std::vector<TokenId>{2}));
}

TEST(UnicodeTest, FindsTheFirstBadByte) {
  EXPECT_EQ(find_invalid_utf8("plain \u00e9 \u6f22 \U0001F469 \uFFFD"), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("ab\xFF"), 2u);
  EXPECT_EQ(find_invalid_utf8("\u00e9\xC3"), 2u);
  EXPECT_EQ(find_invalid_utf8("\xC0\xAF"), 0u);           // overlong
  EXPECT_EQ(find_invalid_utf8("a\xED\xA0\x80"), 1u);      // surrogate
  EXPECT_EQ(find_invalid_utf8("a\xF4\x90\x80\x80"), 1u);  // beyond U+10FFFF
}

TEST(UnicodeTest, KnowsClasses) {
  EXPECT_EQ(class_of(0xE9), CharClass::kLetter);
  EXPECT_EQ(class_of(0x301), CharClass::kMark);
  EXPECT_EQ(class_of(0x2167), CharClass::kNumber);
  EXPECT_EQ(class_of(0x3000), CharClass::kSpace);
  // Mongolian vowel separator: white space until Unicode 6.3
  EXPECT_EQ(class_of(0x180E), CharClass::kOther);
  EXPECT_EQ(class_of(0x2EBF0), CharClass::kLetter);  // new in Unicode 15.1
  EXPECT_EQ(class_of(0x200B), CharClass::kOther);
  EXPECT_EQ(class_of(0x110000), CharClass::kOther);
}

}  // namespace
}  // namespace spectralquant::text
