#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "golden.h"
#include "spectralquant/core/error.h"
#include "spectralquant/text/chat.h"
#include "spectralquant/text/chat_families.h"

namespace spectralquant::text {
namespace {

using testing::HasSubstr;

const std::vector<Message> kTalk = {
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello"}};

gguf::Metadata with_template(std::string_view chat_template) {
  gguf::Metadata metadata;
  metadata.set("tokenizer.chat_template", gguf::Value::of_string(chat_template));
  return metadata;
}

gguf::Metadata with_tokens(const std::vector<std::string>& tokens) {
  gguf::Metadata metadata;
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  return metadata;
}

std::string name_of(const gguf::Metadata& metadata) {
  return ChatFormat::from_metadata(metadata).name();
}

TEST(ChatTest, RendersAsStockDoes) {
  std::ifstream stream(std::string(SQ_SOURCE_DIR) + "/tests/golden/text/chats.json");
  const auto golden = nlohmann::json::parse(stream);
  std::vector<Message> messages;
  for (const auto& message : golden["messages"])
    messages.push_back({message[0].get<std::string>(), message[1].get<std::string>()});
  EXPECT_GE(golden["cases"].size(), 20u);
  for (const auto& item : golden["cases"]) {
    const auto format =
        ChatFormat::from_metadata(with_template(item["template"].get<std::string>()));
    EXPECT_EQ(format.name(), item["name"]);
    EXPECT_EQ(format.render(messages), item["text"]) << item["name"];
  }
}

struct Case {
  const char* name;
  const char* chat_template;
  const char* rendered;  ///< kTalk
};

/// Families whose own templates say something else than llama.cpp's code, or that it does not know.
class OwnTemplateTest : public testing::TestWithParam<Case> {};

TEST_P(OwnTemplateTest, IsRenderedAsTheTemplateDoes) {
  const auto format = ChatFormat::from_metadata(with_template(GetParam().chat_template));
  EXPECT_EQ(format.name(), GetParam().name);
  EXPECT_EQ(format.render(kTalk), GetParam().rendered);
}

INSTANTIATE_TEST_SUITE_P(
    All, OwnTemplateTest,
    testing::Values(
        Case{"gemma4", "{{- '<|turn>' + role + '\\n' }} '<turn|>\\n'",
             "<|turn>system\nBe "
             "brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHello<turn|>\n"},
        Case{"gpt-oss", "<|start|>assistant<|channel|>final<|message|>",
             "<|start|>developer<|message|># Instructions\n\nBe brief.\n\n<|end|><|start|>user"
             "<|message|>Hi<|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>"},
        Case{"glm4.5", "[gMASK]<sop> {{ '\\n<think></think>' }}",
             "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nHello"},
        Case{"deepseek3", "{{'<｜User｜>' + message['content']}} '<｜Assistant｜>'",
             "Be brief.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜>"},
        Case{"phi4-mini", "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}",
             "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|>"},
        Case{"zephyr", "{{ '<|user|>\\n' + message['content'] + eos_token }}",
             "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n"},
        Case{"tulu", "{{ '<|user|>\n' + message['content'] + '\n' }} eos_token",
             "<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello</s>\n"}));

TEST(ChatTest, IsFoundByTheVocabularyWhenThereIsNoTemplate) {
  EXPECT_EQ(name_of(with_tokens({"a", "<|im_start|>", "<|im_end|>"})), "chatml");
  EXPECT_EQ(name_of(with_tokens({"<|im_start|>", "<|im_sep|>", "<|im_end|>"})), "phi4");
  EXPECT_EQ(name_of(with_tokens({"<|im_start|>"})), "plain");
  EXPECT_EQ(name_of(with_tokens({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})),
            "llama3");
  EXPECT_EQ(name_of(with_tokens({"<|turn>", "<turn|>"})), "gemma4");
  EXPECT_EQ(
      name_of(with_tokens({"<|start|>", "<|message|>", "<|channel|>", "<|return|>", "<|end|>"})),
      "gpt-oss");
  EXPECT_EQ(name_of(with_tokens({"<|start_of_role|>", "<|end_of_role|>"})), "granite");
  EXPECT_EQ(name_of(with_tokens({"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"})), "glm4");
  EXPECT_EQ(name_of(with_tokens({"[INST]", "[/INST]"})), "mistral-v3");
  EXPECT_EQ(name_of({}), "plain");
  EXPECT_EQ(ChatFormat::from_metadata({}).render(kTalk),
            "system: Be brief.\nuser: Hi\nassistant: Hello\n");
}

TEST(ChatTest, LooksAtThePreTokenizerWhereTemplatesDoNotTell) {
  gguf::Metadata metadata = with_template("'[SYSTEM_PROMPT]' + '[INST]'");
  metadata.set("tokenizer.ggml.pre", gguf::Value::of_string("tekken"));
  const ChatFormat format = ChatFormat::from_metadata(metadata);
  EXPECT_EQ(format.name(), "mistral-v7-tekken");
  EXPECT_EQ(format.render(kTalk),
            "[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello</s>");
}

TEST(ChatTest, RefusesWhatItWouldHaveToGuess) {
  const auto refusal = [](const gguf::Metadata& metadata) {
    try {
      return ChatFormat::from_metadata(metadata).render(kTalk);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return std::string(error.what());
    }
  };
  EXPECT_THAT(refusal(with_template("{{ something else }}")), HasSubstr("of no known family"));
  EXPECT_THAT(refusal(with_template("<|im_start|> <end_of_utterance>")), HasSubstr("SmolVLM"));
  EXPECT_THAT(refusal(with_template("<|userprompt|> <|endofuserprompt|>")), HasSubstr("dots.llm1"));
  EXPECT_THAT(refusal(with_tokens({"<|user|>", "<|assistant|>"})),
              HasSubstr("apply_chat_template"));
  for (const ChatFamily& family : chat_families()) {
    const bool is_named = rendered_chat_families().find(family.name) != std::string::npos;
    EXPECT_EQ(is_named, family.is_rendered) << family.name;
  }
}

TEST(ChatTest, EndsATurnWithTheModelsOwnEos) {
  gguf::Metadata metadata = with_template("'<|user|>\\n' + message['content'] + eos_token");
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings({"a", "<|endoftext|>"}));
  metadata.set("tokenizer.ggml.eos_token_id", gguf::Value::of_u32(1));
  EXPECT_EQ(ChatFormat::from_metadata(metadata).render({{"user", "Hi"}}),
            "<|user|>\nHi<|endoftext|>\n");
}

TEST(ChatTest, KeepsASystemTextThatNoUserFollows) {
  const ChatFormat format = ChatFormat::from_metadata(with_template("<start_of_turn>"));
  EXPECT_EQ(format.render({{"system", "Alone"}}), "<start_of_turn>user\nAlone<end_of_turn>\n");
  EXPECT_EQ(format.render({}), "");
}

constexpr const char* kQwen3 =
    "<|im_start|> <think> last_query_index <tool_call> <tool_response> message.role == \"tool\"";

TEST(ChatTest, ShowsReasoningWhereTheTemplateDoes) {
  const std::vector<Message> talk = {
      {"user", "A"}, {"assistant", "B", "first"}, {"user", "C"}, {"assistant", "D", "\nsecond\n"}};
  LeftOut left_out;
  EXPECT_EQ(ChatFormat::from_metadata(with_template(kQwen3)).render(talk, &left_out),
            "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
            "<|im_start|>user\nC<|im_end|>\n"
            "<|im_start|>assistant\n<think>\nsecond\n</think>\n\nD<|im_end|>\n");
  EXPECT_EQ(left_out.reasoning, 1u);
  left_out = {};
  EXPECT_EQ(ChatFormat::from_metadata(with_template("<|im_start|>")).render(talk, &left_out),
            "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
            "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n");
  EXPECT_EQ(left_out.reasoning, 2u);
  EXPECT_THAT(ChatFormat::from_metadata(nano_metadata()).render(talk),
              HasSubstr("<think>\nsecond\n</think>\n\nD"));
  EXPECT_THAT(ChatFormat::from_metadata(with_template("[gMASK]<sop> <think>")).render(talk),
              HasSubstr("<|assistant|>\n<think>second</think>\nD"));
  EXPECT_THAT(
      ChatFormat::from_metadata(with_template("<|start|><|channel|><|message|>")).render(talk),
      HasSubstr("<|start|>assistant<|channel|>analysis<|message|>second<|end|>"
                "<|start|>assistant<|channel|>final<|message|>D<|return|>"));
}

const std::vector<Message> kTools = {
    {"user", "Count"},
    {"assistant",
     "",
     "",
     {{"count", R"({"what": "boats", "n": [1, 2], "all": true})"}, {"stop", "{}"}}},
    {"tool", "3"},
    {"tool", "ok"},
    {"assistant", "Three."}};

TEST(ChatTest, WritesCallsAndAnswersOfToolsAsTheTemplateDoes) {
  LeftOut left_out;
  EXPECT_EQ(ChatFormat::from_metadata(with_template(kQwen3)).render(kTools, &left_out),
            "<|im_start|>user\nCount<|im_end|>\n<|im_start|>assistant\n"
            "<tool_call>\n{\"name\": \"count\", \"arguments\": "
            "{\"what\": \"boats\", \"n\": [1, 2], \"all\": true}}\n</tool_call>\n"
            "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call><|im_end|>\n"
            "<|im_start|>user\n<tool_response>\n3\n</tool_response>\n"
            "<tool_response>\nok\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\nThree.<|im_end|>\n");
  // Qwen 3.5, as the embedded model
  EXPECT_EQ(ChatFormat::from_metadata(nano_metadata()).render(kTools, &left_out),
            "<|im_start|>user\nCount<|im_end|>\n<|im_start|>assistant\n"
            "<tool_call>\n<function=count>\n<parameter=what>\nboats\n</parameter>\n"
            "<parameter=n>\n[1, 2]\n</parameter>\n<parameter=all>\nTrue\n</parameter>\n"
            "</function>\n</tool_call>\n<tool_call>\n<function=stop>\n</function>\n</tool_call>"
            "<|im_end|>\n<|im_start|>user\n<tool_response>\n3\n</tool_response>\n"
            "<tool_response>\nok\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\nThree.<|im_end|>\n");
  EXPECT_EQ(left_out.tool_calls + left_out.tool_turns, 0u);
}

TEST(ChatTest, CountsWhatItHasNoPlaceFor) {
  LeftOut left_out;
  EXPECT_EQ(ChatFormat::from_metadata(with_template("<start_of_turn>")).render(kTools, &left_out),
            "<start_of_turn>user\nCount<end_of_turn>\n<start_of_turn>model\nThree.<end_of_turn>\n");
  EXPECT_EQ(left_out.tool_calls, 2u);
  EXPECT_EQ(left_out.tool_turns, 2u);
  left_out = {};
  ChatFormat::from_metadata(with_template("<start_of_turn>")).render({{"critic", "x"}}, &left_out);
  EXPECT_EQ(left_out.turns, 1u);
  // arguments that are no object have no XML
  left_out = {};
  ChatFormat::from_metadata(nano_metadata())
      .render({{"assistant", "", "", {{"f", "not json"}}}}, &left_out);
  EXPECT_EQ(left_out.tool_calls, 1u);
}

}  // namespace
}  // namespace spectralquant::text
