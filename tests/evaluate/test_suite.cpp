// How text becomes scored positions: the grammar of --suite and the three protocols.
#include <fmt/format.h>

#include "evaluate_fixture.h"

namespace spectralquant::evaluate {
namespace {

using testing::HasSubstr;

TEST(ParseSuiteTest, AFileAloneIsScoredByDocuments) {
  const SuiteSpec spec = parse_suite("held=suites/held out.jsonl");
  EXPECT_EQ(spec.name, "held");
  EXPECT_EQ(spec.pattern, "suites/held out.jsonl");
  EXPECT_EQ(spec.protocol, Protocol::kDocuments);
  EXPECT_EQ(spec.protocol_text, "documents");
  EXPECT_EQ(parse_suite("held=a.txt:documents").pattern, "a.txt");
}

TEST(ParseSuiteTest, ReadsWindows) {
  const SuiteSpec spec = parse_suite("conv=a.jsonl:64x256");
  EXPECT_EQ(spec.pattern, "a.jsonl");
  EXPECT_EQ(spec.protocol, Protocol::kWindows);
  EXPECT_EQ(spec.n_windows, 64);
  EXPECT_EQ(spec.window_tokens, 256);
  EXPECT_EQ(spec.protocol_text, "64x256");
}

TEST(ParseSuiteTest, ReadsTheStockProtocol) {
  const SuiteSpec spec = parse_suite("wiki=wiki.test.raw:c512");
  EXPECT_EQ(spec.pattern, "wiki.test.raw");
  EXPECT_EQ(spec.protocol, Protocol::kStock);
  EXPECT_EQ(spec.window_tokens, 512);
  EXPECT_EQ(spec.n_windows, 0);
}

TEST(ParseSuiteTest, ReadsTheChatProtocol) {
  const SuiteSpec spec = parse_suite("wiki=wiki.test.raw:chat4096");
  EXPECT_EQ(spec.pattern, "wiki.test.raw");
  EXPECT_EQ(spec.protocol, Protocol::kChat);
  EXPECT_EQ(spec.window_tokens, 4096);
  EXPECT_EQ(spec.protocol_text, "chat4096");
}

TEST(ParseSuiteTest, SpecialTokensAreParsedOnRequest) {
  const SuiteSpec stock = parse_suite("chat=chat.txt:c512+special");
  EXPECT_EQ(stock.pattern, "chat.txt");
  EXPECT_EQ(stock.protocol, Protocol::kStock);
  EXPECT_TRUE(stock.parse_special);
  EXPECT_EQ(stock.protocol_text, "c512+special");
  EXPECT_FALSE(parse_suite("chat=chat.txt:c512").parse_special);
  EXPECT_TRUE(parse_suite("chat=chat.txt:4x16+special").parse_special);
  for (const auto* text : {"chat=chat.txt:+special", "chat=chat.txt:documents+special"}) {
    const SuiteSpec documents = parse_suite(text);
    EXPECT_EQ(documents.pattern, "chat.txt");
    EXPECT_EQ(documents.protocol_text, "documents+special");
    EXPECT_TRUE(documents.parse_special);
  }
  EXPECT_EQ(parse_suite("a=b+special").pattern, "b+special");
  EXPECT_EQ(parse_suite("a=b:").pattern, "b:");
}

TEST(ParseSuiteTest, OnlyTheEndIsAProtocol) {
  EXPECT_EQ(parse_suite("a=C:/texts/x.txt").pattern, "C:/texts/x.txt");
  EXPECT_EQ(parse_suite("a=x=y.txt:c8").pattern, "x=y.txt");
  EXPECT_EQ(parse_suite("a=x:c8:4x16").pattern, "x:c8");
  EXPECT_EQ(parse_suite("a=x.txt:4x16x2").protocol, Protocol::kDocuments);
}

TEST(ParseSuiteTest, RefusesWithTheGrammar) {
  for (const std::string text :
       {"", "held", "=a.txt", "held=", "held=:c512", "held=a:0x16", "held=a:4x1", "held=a:c3"}) {
    try {
      parse_suite(text);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadUsage) << text;
      EXPECT_THAT(error.problem(), HasSubstr("'" + text + "'"));
      EXPECT_EQ(error.place(), "--suite");
      EXPECT_THAT(error.fix(), HasSubstr("NAME=FILE:64x256"));
    }
  }
}

using LoadSuiteTest = SuiteFixture;

TEST_F(LoadSuiteTest, DocumentsPredictEveryTokenButTheFirst) {
  spew(path("three.jsonl"),
       "{\"text\": \"0123\"}\n{\"text\": \"the river\"}\n{\"text\": \"77\"}\n");
  const Suite suite = load("", "three.jsonl");
  const auto river = tokenizer().encode("the river");
  ASSERT_EQ(suite.items.size(), 3u);
  EXPECT_EQ(suite.n_units, 3);
  EXPECT_EQ(suite.n_scored, 3 + static_cast<std::int64_t>(river.size()) - 1 + 1);
  EXPECT_EQ(suite.items[1].tokens, river);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(suite.items[i].first_scored, 1);
    EXPECT_EQ(suite.items[i].document, static_cast<std::int64_t>(i));
  }
}

TEST_F(LoadSuiteTest, LongDocumentsAreCutAndStayOneUnit) {
  spew(path("two.jsonl"), "{\"text\": \"0123456789\"}\n{\"text\": \"012345678\"}\n");
  const Suite suite = load("documents", "two.jsonl", 4);
  std::vector<std::size_t> lengths;
  std::vector<std::int64_t> units;
  for (const auto& item : suite.items)
    lengths.push_back(item.tokens.size()), units.push_back(item.document);
  // the ninth token of the second would predict nothing
  EXPECT_EQ(lengths, (std::vector<std::size_t>{4, 4, 2, 4, 4}));
  EXPECT_EQ(units, (std::vector<std::int64_t>{0, 0, 0, 1, 1}));
  EXPECT_EQ(suite.n_units, 2);
  EXPECT_EQ(suite.n_scored, 3 + 3 + 1 + 3 + 3);
}

TEST_F(LoadSuiteTest, WindowsRunThroughTheJoinedText) {
  spew(path("two.jsonl"), "{\"text\": \"012\"}\n{\"text\": \"3456789\"}\n");
  auto joined = tokenizer().encode("012");
  joined.push_back(tokenizer().eos());
  for (auto id : tokenizer().encode("3456789")) joined.push_back(id);
  // 11 tokens fill two windows, and the rest is dropped
  const Suite all = load("9x4", "two.jsonl");
  ASSERT_EQ(all.items.size(), 2u);
  EXPECT_EQ(all.items[0].tokens, part(joined, 0, 4));
  EXPECT_EQ(all.items[1].tokens, part(joined, 4, 8));
  EXPECT_EQ(all.n_units, 2);
  EXPECT_EQ(all.n_scored, 6);
  EXPECT_EQ(load("1x4", "two.jsonl").items.size(), 1u);
}

TEST_F(LoadSuiteTest, StockCountsTheSecondHalfOnly) {
  const Suite suite = load_text("c8", "0123456789012345678");
  ASSERT_EQ(suite.items.size(), 2u);
  for (const auto& item : suite.items) {
    EXPECT_EQ(item.tokens.size(), 8u);
    EXPECT_EQ(item.first_scored, 5);  // predictions at positions 4, 5, 6
  }
  EXPECT_EQ(suite.n_scored, 6);
  EXPECT_EQ(load_text("c9", "0123456789").n_scored, 4);
}

TEST_F(LoadSuiteTest, StockPutsBosOverTheFirstTokenOfEveryWindow) {
  constexpr std::int32_t kBos = model::kTinyEos + 1;
  metadata_.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(kBos));
  metadata_.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(true));
  const std::string text = "01234567890123456";
  const auto tokens = tokenizer().encode(text);
  ASSERT_EQ(tokens[0], kBos);
  const Suite stock = load_text("c8", text), windows = load_text("2x8", text);
  ASSERT_EQ(stock.items.size(), 2u);
  auto second = part(tokens, 8, 16);
  EXPECT_EQ(windows.items[1].tokens, second);
  second[0] = kBos;
  EXPECT_EQ(stock.items[0].tokens, part(tokens, 0, 8));
  EXPECT_EQ(stock.items[1].tokens, second);
}

TEST_F(LoadSuiteTest, SpecialTokensInPlainTextAreLettersUnlessAskedFor) {
  const std::string text = "<|im_start|>user 0123456789<|im_end|>";
  const auto letters = tokenizer().encode(text, {.parse_special = false}),
             special = tokenizer().encode(text);
  ASSERT_GT(letters.size(), special.size());
  for (const std::string protocol : {"", "1x8", "c8"}) {
    const auto plain = load_text(protocol, text),
               parsed = load_text((protocol.empty() ? "documents" : protocol) + "+special", text);
    const auto n = protocol.empty() ? letters.size() : 8;
    EXPECT_EQ(plain.items.at(0).tokens, part(letters, 0, n)) << protocol;
    EXPECT_EQ(parsed.items.at(0).tokens, part(special, 0, std::min(n, special.size()))) << protocol;
    EXPECT_EQ(plain.n_unparsed_special, 2);
    EXPECT_EQ(parsed.n_unparsed_special, 0);
    EXPECT_NE(plain.hash, parsed.hash);
  }
}

TEST_F(LoadSuiteTest, ChatsAreRenderedWithSpecialTokensAlways) {
  spew(path("chat.jsonl"), R"({"messages": [{"role": "user", "content": "the sea"}]})"
                           "\n"
                           R"({"text": "<|im_end|> 0123"})"
                           "\n");
  const auto suite = load("", "chat.jsonl");
  EXPECT_EQ(suite.items.at(0).tokens[0], tokenizer().find("<|im_start|>"));
  EXPECT_EQ(suite.items.at(1).tokens,
            tokenizer().encode("<|im_end|> 0123", {.parse_special = false}));
  EXPECT_EQ(suite.n_unparsed_special, 1);
}

TEST_F(LoadSuiteTest, StockDropsTheLastLineEndOfAFile) {
  const std::string text = "012345678901234";
  EXPECT_EQ(load_text("c8", text + "7").items.size(), 2u);
  EXPECT_EQ(load_text("c8", text + "\n").items.size(), 1u);
  EXPECT_EQ(load_text("2x8", text + "\n").items.size(), 2u);
}

TEST_F(LoadSuiteTest, AChatAsksWithTheFirstHalfAndScoresTheAnswer) {
  const auto words = tokenizer();
  const auto before = words.encode("<|im_start|>user\n"),
             between = words.encode("<|im_end|>\n<|im_start|>assistant\n"),
             after = words.encode("<|im_end|>\n");
  const std::size_t n_text = 9, window = before.size() + between.size() + after.size() + n_text;
  const Suite suite = load_text(fmt::format("chat{}", window), "01234567890123456789");
  ASSERT_EQ(suite.items.size(), 2u);
  auto expected = before;
  for (const auto& part_of_it : {words.encode("0123"), between, words.encode("45678"), after})
    expected.insert(expected.end(), part_of_it.begin(), part_of_it.end());
  EXPECT_EQ(suite.items[0].tokens, expected);
  EXPECT_EQ(suite.items[0].first_scored,
            static_cast<std::int64_t>(before.size() + 4 + between.size()));
  EXPECT_EQ(suite.items[0].n_scored(), 5 + after.size());
  EXPECT_EQ(suite.items[1].place, "window 2");
  EXPECT_EQ(suite.n_units, 2);
}

TEST_F(LoadSuiteTest, AChatHasItsBosOnce) {
  constexpr std::int32_t kBos = model::kTinyEos + 1;
  metadata_.set("tokenizer.ggml.bos_token_id", gguf::Value::of_u32(kBos));
  metadata_.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(true));
  const auto tokens = load_text("chat60", std::string(80, '7')).items.at(0).tokens;
  EXPECT_EQ(tokens[0], kBos);
  // <|im_start|>, which is the same token here
  EXPECT_EQ(std::count(tokens.begin() + 1, tokens.end(), kBos), 2);
}

TEST_F(LoadSuiteTest, MarkersBehindTextGetNoSpaceOfSentencePiece) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<std::int32_t> kinds = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    kinds.push_back(6);
  }
  gguf::Metadata spm;
  spm.set("tokenizer.ggml.model", gguf::Value::of_string("llama"));
  spm.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  spm.set("tokenizer.ggml.token_type", model::tiny::of_i32s(kinds));
  spm.set("tokenizer.chat_template", gguf::Value::of_string("[INST] {{ content }} [/INST]"));
  metadata_ = spm;
  // A space is three bytes: <s>, " [INST] ", half of the text, " [/INST]".
  constexpr std::int64_t kBefore = 1 + 12, kBetween = 10, kAfter = 1, kText = 10;
  const auto item =
      load_text(fmt::format("chat{}", kBefore + kBetween + kAfter + kText), "0123456789")
          .items.at(0);
  EXPECT_EQ(item.first_scored, kBefore + kText / 2 + kBetween);
  EXPECT_EQ(item.tokens.back(), 2);
}

TEST_F(LoadSuiteTest, RefusesAChatInAChatAndWindowsOfMarkersOnly) {
  spew(path("chat.jsonl"), R"({"messages": [{"role": "user", "content": "the sea"}]})");
  EXPECT_THAT(refusal([&] { load("chat64", "chat.jsonl"); }),
              HasSubstr("the text is a chat already"));
  EXPECT_THAT(refusal([&] { load_text("chat6", "0123456789"); }),
              HasSubstr("the chat's markers take"));
}

TEST_F(LoadSuiteTest, ItemsKnowTheirPlace) {
  spew(path("two.jsonl"), "{\"text\": \"0123456789\"}\n{\"text\": \"0123\"}\n");
  const Suite suite = load("documents", "two.jsonl", 6);
  ASSERT_EQ(suite.items.size(), 3u);
  EXPECT_EQ(suite.items[1].place, path("two.jsonl") + ":1, from token 6");
  EXPECT_EQ(suite.items[2].place, path("two.jsonl") + ":2");
}

TEST_F(LoadSuiteTest, TheHashTellsWhatWasScored) {
  const std::string text = "01234567890123456789";
  const auto hash = load_text("2x8", text).hash;
  EXPECT_EQ(load_text("2x8", text).hash, hash);
  EXPECT_NE(load_text("2x8", "1" + text).hash, hash);
  EXPECT_NE(load_text("c8", text).hash, hash);
  EXPECT_NE(load_text("1x8", text).hash, hash);
}

TEST_F(LoadSuiteTest, RefusesTextThatFillsNoWindow) {
  for (const auto* protocol : {"4x16", "c16"})
    EXPECT_THAT(refusal([&] { load_text(protocol, "0123"); }),
                HasSubstr("the text has 4 tokens, one window needs 16"));
}

TEST_F(LoadSuiteTest, RefusesDocumentsWithNothingToPredict) {
  const std::string message = refusal([&] { load_text("", "7"); });
  EXPECT_THAT(message, HasSubstr("no token to predict"));
  EXPECT_THAT(message, HasSubstr("text.txt"));
}

TEST_F(LoadSuiteTest, RefusesFilesWithoutText) {
  EXPECT_THAT(refusal([&] { load_text("", ""); }), HasSubstr("is empty"));
  EXPECT_THAT(refusal([&] { load_text("", std::string("ab\0cd", 5)); }), HasSubstr("is binary"));
  EXPECT_THAT(refusal([&] { load_text("", "ab\xff\xfe"); }), HasSubstr("is not UTF-8"));
  EXPECT_THAT(refusal([&] { load("", "none.txt"); }), HasSubstr("none.txt"));
  EXPECT_THAT(refusal([&] { load("", "none*.txt"); }), HasSubstr("no file matches"));
}

}  // namespace
}  // namespace spectralquant::evaluate
