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
  EXPECT_THAT(line("{\"text\": \"a\tb\"}"), HasSubstr("no JSON"));
  EXPECT_THAT(line("{\"messages\": {}}"), HasSubstr("no list of messages"));
  EXPECT_THAT(line("{\"messages\": [{\"role\": \"user\"}]}"), HasSubstr("lacks"));
  EXPECT_THAT(line("{\"messages\": [{\"role\": \"user\", \"content\": 1}]}"),
              HasSubstr("is no text"));
  EXPECT_THAT(line("{\"instruction\": \"a\", \"output\": \"b\"}"), HasSubstr("jq -c"));
  EXPECT_THAT(line("{\"body\": \"a\", \"id\": 1}"), HasSubstr("its fields are: body, id"));
}

/// The texts of one file.
std::vector<std::string> texts_of(const Corpus& corpus) {
  std::vector<std::string> texts;
  for (const Document& document : corpus.documents) texts.push_back(document.text);
  return texts;
}

TEST_F(CorpusTest, RecognisesJsonByItsContent) {
  const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  const std::vector<std::pair<std::string, std::string>> files = {
      {"a.ndjson", lines},
      {"a.JSONL", lines},
      {"a.txt", lines},
      {"noname", "\n" + lines},
      {"crlf.json", "{\"text\": \"one\"}\r\n\r\n{\"text\": \"two\"}\r\n"},
      {"marks.jsonl", "\xEF\xBB\xBF{\"text\": \"one\"}\n\xEF\xBB\xBF{\"text\": \"two\"}\n"},
      {"array.json", "[\n {\n  \"text\": \"one\"\n },\n null,\n {\"text\": \"two\"}\n]\n"},
      {"array.txt", "[{\"text\": \"one\"}, {\"text\": \"two\"}]"},
      {"texts.json", "[\"one\", \"two\"]"},
      {"data.json", "{\"version\": 1, \"data\": [{\"text\": \"one\"}, {\"text\": \"two\"}]}"},
      {"column.json", "{\"text\": [\"one\", \"two\"], \"id\": [1, 2]}"},
  };
  for (const auto& [name, content] : files) {
    const Corpus corpus = load_corpus({write(name, content)}, chat_);
    EXPECT_THAT(texts_of(corpus), ElementsAre("one", "two")) << name;
    EXPECT_THAT(corpus.notes, testing::IsEmpty()) << name;
  }
  EXPECT_EQ(load_corpus({path("a.txt")}, chat_).documents[1].origin, path("a.txt") + ":2");
  EXPECT_EQ(load_corpus({path("array.json")}, chat_).documents[1].origin,
            path("array.json") + ", item 3");
  EXPECT_EQ(load_corpus({path("data.json")}, chat_).documents[0].origin,
            path("data.json") + ", \"data\", item 1");
}

TEST_F(CorpusTest, TakesAListOfMessagesForOneChat) {
  const std::string chat =
      R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])";
  const std::string rendered =
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n";
  for (const std::string& content :
       {chat, "[" + chat + "]", "{\"messages\": " + chat + "}", "[{\"messages\":" + chat + "}]",
        "{\"chats\": [{\"conversations\":\n" + chat + "}]}"}) {
    const Corpus corpus = load_corpus({write("chat.json", content)}, chat_);
    EXPECT_THAT(texts_of(corpus), ElementsAre(rendered)) << content;
    EXPECT_TRUE(corpus.documents[0].is_chat);
  }
}

TEST_F(CorpusTest, LeavesPlainTextThatBeginsWithBracesAsItIs) {
  for (const std::string text :
       {"{ this is no JSON }\nat all\n", "[1] A note.\n[2] Another.\n", "{{ template }}",
        "[INST] Hi [/INST]", "{}\n\nint main() {\n}\n", "{\n  int x;\n}\n"}) {
    const Corpus corpus = load_corpus({write("plain.txt", text)}, chat_);
    EXPECT_THAT(texts_of(corpus), ElementsAre(text));
    EXPECT_THAT(corpus.notes, testing::IsEmpty()) << text;
  }
  const Corpus doubtful = load_corpus({write("cut.txt", "{\"text\": \"cut o")}, chat_);
  EXPECT_EQ(doubtful.documents.size(), 1u);
  EXPECT_THAT(doubtful.notes, ElementsAre(HasSubstr("begins like JSON, but is none")));
}

TEST_F(CorpusTest, NotesAWebPage) {
  for (const std::string text : {"\n<!DOCTYPE html>\n<p>a</p>", "<HTML lang=\"en\">a</HTML>"}) {
    const Corpus corpus = load_corpus({write("page.html", text)}, chat_);
    EXPECT_THAT(texts_of(corpus), ElementsAre(text));
    EXPECT_THAT(corpus.notes, ElementsAre(HasSubstr("a web page, taken with its tags")));
  }
  for (const std::string text : {"<p>a</p>", "<", "<!doctype", "An <html> tag."})
    EXPECT_THAT(load_corpus({write("plain.txt", text)}, chat_).notes, testing::IsEmpty()) << text;
}

TEST_F(CorpusTest, RefusesJsonItCannotRead) {
  EXPECT_THAT(refusal(write("a.json", "{\"text\":\n \"cut o")),
              testing::AllOf(HasSubstr("named as JSON, but is none"), HasSubstr("a.json:2")));
  EXPECT_THAT(refusal(write("a.txt", "{\"text\": \"a\"}\n{\"text\": \"b\"\n{\"text\": \"c\"}\n")),
              testing::AllOf(HasSubstr("the line is no JSON"), HasSubstr("a.txt:2")));
  EXPECT_THAT(refusal(write("first.txt", "{\"text\": \n{\"text\": \"b\"}\n{\"text\": \"c\"}\n")),
              HasSubstr("first.txt:1"));
  EXPECT_THAT(refusal(write("two.json", R"({"a": [{"text": "x"}], "b": [{"text": "y"}]})")),
              testing::AllOf(HasSubstr("several lists of documents: a, b"), HasSubstr("jq -c")));
  EXPECT_THAT(refusal(write("package.json", "{\"name\": \"x\", \"files\": [\"a\"]}")),
              HasSubstr("its fields are: name, files"));
  EXPECT_THAT(refusal(write("numbers.json", "[1, 2]")),
              testing::AllOf(HasSubstr("item 1"), HasSubstr("jq -Rs")));
}

TEST_F(CorpusTest, ReadsFieldsThatJsonDoesNotKnow) {
  const Corpus corpus = load_corpus(
      {write("a.jsonl",
             "{\"text\": \"NaN \\\" Infinity\", \"x\": NaN, \"y\": [-Infinity, 1e999]}\n"
             "{\"text\": null, \"x\": Infinity}\n"
             "{\"text\": NaN}\n"
             "{\"text\": \"half \\ud83d pair \\ud83d\\ude00\", \"x\": \"\\udc00\"}\n"
             "{\"messages\": null, \"text\": \"c\"}\n"
             "{\"messages\": []}\n")},
      chat_);
  EXPECT_THAT(texts_of(corpus), ElementsAre("NaN \" Infinity", "half \uFFFD pair \U0001F600", "c"));
  EXPECT_THAT(corpus.notes, ElementsAre(path("a.jsonl") + ": left out 3 records without text"));
}

TEST_F(CorpusTest, ReadsChatsOfManyForms) {
  const auto rendered = [&](const std::string& messages) {
    return load_corpus({write("a.jsonl", "{\"messages\": " + messages + "}\n")}, chat_)
        .documents.at(0)
        .text;
  };
  const std::string hi = "<|im_start|>user\nHi<|im_end|>\n",
                    ho = "<|im_start|>assistant\nHo<|im_end|>\n";
  EXPECT_EQ(rendered(R"([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}])"),
            hi + ho);
  EXPECT_EQ(rendered(R"([{"role": "developer", "content": "Be"}])"),
            "<|im_start|>system\nBe<|im_end|>\n");
  const std::string thought = "<|im_start|>assistant\n<think>\nwell\n</think>\n\nHo<|im_end|>\n";
  for (const char* key : {"reasoning_content", "reasoning", "thinking"}) {
    EXPECT_EQ(
        rendered(std::string(R"([{"role": "user", "content": "Hi"}, {"role": "assistant", ")") +
                 key + R"(": "well", "content": "Ho"}])"),
        hi + thought);
  }
  EXPECT_EQ(rendered(R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content":
                          [{"type": "thinking", "thinking": "well"}, "Ho"]}])" +
                     std::string()),
            hi + thought);
  const std::string call =
      "<|im_start|>assistant\n<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n"
      "</function>\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n3\n"
      "</tool_response><|im_end|>\n";
  const std::string answer = R"(, {"role": "tool", "content": "3"}])";
  EXPECT_EQ(rendered(R"([{"role": "assistant", "content": null, "tool_calls": [{"type": "function",
                          "function": {"name": "f", "arguments": "{\"a\": 1}"}}]})" +
                     answer),
            call);
  EXPECT_EQ(rendered(R"([{"role": "assistant", "tool_calls": [{"name": "f", "arguments":
                          {"a": 1}}]})" +
                     answer),
            call);
  EXPECT_EQ(
      rendered(
          R"([{"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},)"
          R"( {"from": "observation", "value": "3"}])"),
      call);
}

TEST_F(CorpusTest, SaysWhatItLeavesOut) {
  const Corpus corpus = load_corpus(
      {write("a.jsonl",
             R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}},)"
             R"( {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "A boat.")"
             R"(, "tool_calls": [7]}]})"
             "\n")},
      chat_);
  EXPECT_THAT(texts_of(corpus), ElementsAre("<|im_start|>user\nWhat?<|im_end|>\n"
                                            "<|im_start|>assistant\nA boat.<|im_end|>\n"));
  EXPECT_THAT(corpus.notes, ElementsAre(path("a.jsonl") + ": left out 1 part (image_url), "
                                                          "1 tool call of no known form"));
  gguf::Metadata gemma;
  gemma.set("tokenizer.chat_template", gguf::Value::of_string("<start_of_turn>"));
  const Corpus plain = load_corpus(
      {write("b.jsonl", R"({"messages": [{"role": "user", "content": "Hi"},)"
                        R"( {"role": "assistant", "reasoning": "well", "content": "Ho"}]})")},
      ChatFormat::from_metadata(gemma));
  EXPECT_THAT(plain.notes,
              ElementsAre(path("b.jsonl") + ": left out 1 turn's reasoning (the chat format gemma "
                                            "has no place for it)"));
}

TEST_F(CorpusTest, NamesTheChatThatItCannotRender) {
  gguf::Metadata metadata;
  metadata.set("tokenizer.chat_template", gguf::Value::of_string("{{ unheard of }}"));
  const ChatFormat unknown = ChatFormat::from_metadata(metadata);
  EXPECT_EQ(load_corpus({write("a.jsonl", "{\"text\": \"a\"}\n")}, unknown).documents.size(), 1u);
  try {
    load_corpus({write("b.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}]})")},
                unknown);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("of no known family"));
    EXPECT_EQ(error.place(), path("b.jsonl") + ":1");
  }
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
