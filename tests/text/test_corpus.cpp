#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "golden.h"
#include "spectralquant/core/error.h"
#include "spectralquant/text/corpus.h"

namespace spectralquant::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

class CorpusTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              ("corpus_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(folder_);
    chat_ = ChatFormat::from_metadata(nano_metadata());
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return path(name);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string refusal(const std::string& pattern) {
    try {
      load_corpus({pattern}, chat_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_;
  ChatFormat chat_;
};

TEST_F(CorpusTest, ReadsPlainTextAsItIs) {
  const std::string file = write("a.txt", "\xEF\xBB\xBFone\r\ntwo\n\n\uFEFF");
  const Corpus corpus = load_corpus({file}, chat_);
  ASSERT_EQ(corpus.documents.size(), 1u);
  EXPECT_EQ(corpus.documents[0].text, "one\r\ntwo\n\n\uFEFF");  // only the mark at the start goes
  EXPECT_EQ(corpus.documents[0].origin, file);
  EXPECT_EQ(corpus.documents[0].source, "");
}

TEST_F(CorpusTest, ReadsJsonlADocumentALine) {
  const std::string file = write(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one\\n\\u00e9\", \"source\": \"web\", \"kind\": \"x\"}\r\n\n  \n"
      "{\"text\": \"\"}\n"
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null}], "kind": "chat"})"
      "\n"
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}]})");
  const Corpus corpus = load_corpus({file}, chat_);
  ASSERT_EQ(corpus.documents.size(), 3u);
  EXPECT_EQ(corpus.documents[0].text, "one\n\u00e9");
  EXPECT_EQ(corpus.documents[0].origin, file + ":1");
  EXPECT_EQ(corpus.documents[0].source, "web");
  EXPECT_EQ(corpus.documents[1].text,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n");
  EXPECT_EQ(corpus.documents[1].origin, file + ":5");
  EXPECT_EQ(corpus.documents[1].source, "chat");
  EXPECT_EQ(corpus.documents[2].text, "<|im_start|>user\nab<|im_end|>\n");
}

TEST_F(CorpusTest, ExpandsPatternsSortedAndTakesFilesByTheirVeryName) {
  write("b.txt", "b");
  write("a.txt", "a");
  write("[x].txt", "bracket");
  const auto texts = [&](const std::vector<std::string>& patterns) {
    std::vector<std::string> found;
    for (const Document& document : load_corpus(patterns, chat_).documents)
      found.push_back(document.text);
    return found;
  };
  EXPECT_THAT(texts({path("?.txt")}), ElementsAre("a", "b"));
  EXPECT_THAT(texts({path("b.txt"), path("a*")}), ElementsAre("b", "a"));
  EXPECT_THAT(texts({path("[x].txt")}), ElementsAre("bracket"));
  EXPECT_THAT(texts({path("[ab].txt")}), ElementsAre("a", "b"));
}

TEST_F(CorpusTest, HashIsThatOfTheTexts) {
  write("a.txt", "one");
  write("b.jsonl", "{\"text\": \"one\"}");
  write("c.txt", "two");
  EXPECT_EQ(load_corpus({path("a.txt")}, chat_).hash, load_corpus({path("b.jsonl")}, chat_).hash);
  EXPECT_NE(load_corpus({path("a.txt")}, chat_).hash, load_corpus({path("c.txt")}, chat_).hash);
  EXPECT_NE(load_corpus({path("a.txt"), path("c.txt")}, chat_).hash,
            load_corpus({path("c.txt"), path("a.txt")}, chat_).hash);
}

TEST_F(CorpusTest, RefusesFilesItCannotRead) {
  EXPECT_THAT(refusal(path("none.txt")), HasSubstr("cannot read"));
  EXPECT_THAT(refusal(path("*.none")), HasSubstr("no file matches"));
  EXPECT_THAT(refusal(folder_.string()), HasSubstr("is a folder"));
  EXPECT_THAT(refusal(write("empty.txt", "")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(write("bom.txt", "\xEF\xBB\xBF")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(write("blank.jsonl", "\n \n{\"text\": \"\"}\n")),
              HasSubstr("holds no document"));
  EXPECT_THROW(load_corpus({}, chat_), Error);
  if (geteuid() != 0) {
    write("closed.txt", "x");
    fs::permissions(path("closed.txt"), fs::perms::none);
    EXPECT_THAT(refusal(path("closed.txt")), HasSubstr("check its permissions"));
  }
}

TEST_F(CorpusTest, NamesTheLineOfWhatIsNoText) {
  EXPECT_THAT(refusal(write("nul.txt", std::string("a\nb\0c", 5))),
              testing::AllOf(HasSubstr("binary"), HasSubstr("nul.txt:2")));
  EXPECT_THAT(refusal(write("latin1.txt", "a\n\ncaf\xE9\n")),
              testing::AllOf(HasSubstr("not UTF-8: byte 0xe9"), HasSubstr("latin1.txt:3")));
}

TEST_F(CorpusTest, NamesTheLineOfBrokenJson) {
  const auto line = [&](const std::string& json) {
    return refusal(write("bad.jsonl", "{\"text\": \"fine\"}\n" + json + "\n"));
  };
  EXPECT_THAT(line("{\"text\": "), testing::AllOf(HasSubstr("no JSON"), HasSubstr("bad.jsonl:2")));
  EXPECT_THAT(line("[1]"), HasSubstr("no JSON object"));
  EXPECT_THAT(line("{\"other\": 1}"), HasSubstr("neither \"text\" nor \"messages\""));
  EXPECT_THAT(line("{\"text\": 1}"), HasSubstr("\"text\" is no text"));
  EXPECT_THAT(line("{\"text\": \"\\ud800\"}"), HasSubstr("no JSON"));
  EXPECT_THAT(line("{\"messages\": []}"), HasSubstr("no list of messages"));
  EXPECT_THAT(line("{\"messages\": [{\"role\": \"user\"}]}"), HasSubstr("lacks"));
  EXPECT_THAT(line("{\"messages\": [{\"role\": \"user\", \"content\": 1}]}"),
              HasSubstr("is no text"));
  EXPECT_THAT(line("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]}"),
              HasSubstr("is no text"));
}

TEST_F(CorpusTest, EncodesEveryDocumentForItself) {
  const Tokenizer tokenizer = Tokenizer::from_metadata(nano_metadata());
  const Corpus corpus = load_corpus(
      {write("a.jsonl", "{\"text\": \"hello world\"}\n{\"text\": \"<|im_start|>\"}\n")}, chat_);
  EXPECT_EQ(encode_documents(corpus, tokenizer),
            (std::vector<std::vector<TokenId>>{tokenizer.encode("hello world"),
                                               {tokenizer.find("<|im_start|>")}}));
}

TEST_F(CorpusTest, ParsesSpecialTokensInPlainTextWhenAskedToAndInChatsAlways) {
  const Tokenizer tokenizer = Tokenizer::from_metadata(nano_metadata());
  const Corpus corpus =
      load_corpus({write("a.jsonl",
                         "{\"text\": \"<|im_start|>\"}\n"
                         "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n")},
                  chat_);
  const auto start = tokenizer.find("<|im_start|>");
  const auto parsed = encode_documents(corpus, tokenizer, {.parse_special = true});
  EXPECT_THAT(parsed[0], ElementsAre(start));
  EXPECT_EQ(parsed[1][0], start);
  const auto letters = encode_documents(corpus, tokenizer, {.parse_special = false});
  EXPECT_THAT(letters[0], testing::AllOf(testing::SizeIs(testing::Gt(1u)),
                                         testing::Not(testing::Contains(start))));
  EXPECT_EQ(letters[1], parsed[1]);
}

TEST(CutWindowsTest, JoinsWithSeparatorsAndDropsTheRest) {
  const std::vector<std::vector<TokenId>> documents = {{1, 2, 3}, {}, {4, 5}, {6}};
  EXPECT_THAT(cut_windows(documents, 3, 0),
              ElementsAre(ElementsAre(1, 2, 3), ElementsAre(0, 4, 5)));
  EXPECT_THAT(cut_windows(documents, 3, -1),
              ElementsAre(ElementsAre(1, 2, 3), ElementsAre(4, 5, 6)));
  EXPECT_THAT(cut_windows(documents, 2, 0, 1), ElementsAre(ElementsAre(1, 2)));
  EXPECT_THAT(cut_windows(documents, 2, 0, 0), ElementsAre());
  EXPECT_THAT(cut_windows(documents, 8, 0), ElementsAre(ElementsAre(1, 2, 3, 0, 4, 5, 0, 6)));
}

TEST(CutWindowsTest, SaysHowManyTokensAreMissing) {
  try {
    cut_windows({{1, 2, 3}, {4}}, 512, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the text has 5 tokens, one window needs 512"));
  }
  EXPECT_THROW(cut_windows({{1}}, 0, 0), Error);
}

}  // namespace
}  // namespace spectralquant::text
