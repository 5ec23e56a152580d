#include <gtest/gtest.h>

#include "spectralquant/text/chat.h"

namespace spectralquant::text {
namespace {

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

struct Case {
  const char* name;
  const char* marker;  ///< found in the chat template
  const char* rendered;
};

class ChatFamilyTest : public testing::TestWithParam<Case> {};

TEST_P(ChatFamilyTest, IsFoundByTheTemplateAndRendered) {
  const ChatFormat format = ChatFormat::from_metadata(with_template(GetParam().marker));
  EXPECT_EQ(format.name(), GetParam().name);
  EXPECT_EQ(format.render(kTalk), GetParam().rendered);
}

INSTANTIATE_TEST_SUITE_P(
    All, ChatFamilyTest,
    testing::Values(
        Case{"chatml", "{{ '<|im_start|>' + role }}",
             "<|im_start|>system\nBe "
             "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_"
             "end|>\n"},
        Case{"llama3", "<|start_header_id|>",
             "<|start_header_id|>system<|end_header_id|>\n\nBe "
             "brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
             "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"},
        Case{"gemma", "<start_of_turn>",
             "<start_of_turn>user\nBe "
             "brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"},
        Case{"phi3", "<|user|> <|end|>",
             "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"},
        Case{"zephyr", "<|user|> eos_token",
             "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n"},
        Case{"mistral", "[INST]", "[INST] Be brief.\n\nHi[/INST] Hello</s>"},
        Case{"plain", "something else", "system: Be brief.\nuser: Hi\nassistant: Hello\n"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ChatTest, IsFoundByTheVocabularyWhenThereIsNoTemplate) {
  EXPECT_EQ(ChatFormat::from_metadata(with_tokens({"a", "<|im_start|>", "<|im_end|>"})).name(),
            "chatml");
  EXPECT_EQ(ChatFormat::from_metadata(with_tokens({"<|im_start|>"})).name(), "plain");
  EXPECT_EQ(ChatFormat::from_metadata(
                with_tokens({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}))
                .name(),
            "llama3");
  EXPECT_EQ(ChatFormat::from_metadata(with_tokens({"[INST]", "[/INST]"})).name(), "mistral");
  EXPECT_EQ(ChatFormat::from_metadata({}).name(), "plain");
}

TEST(ChatTest, EndsATurnWithTheModelsOwnEos) {
  gguf::Metadata metadata = with_template("<|user|>");
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

}  // namespace
}  // namespace spectralquant::text
