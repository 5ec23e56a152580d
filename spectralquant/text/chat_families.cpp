#include "spectralquant/text/chat_families.h"

#include <fmt/format.h>

namespace spectralquant::text {
namespace {

using Families = std::vector<ChatFamily>;

/// The same markers for every role.
ChatFamily uniform(ChatFamily family, TurnMarkers turn) {
  family.system = family.user = family.assistant = turn;
  return family;
}

ChatFamily not_rendered(std::string_view name, ChatFamily::Texts in_template,
                        ChatFamily::Texts tokens = {}) {
  return {.name = name,
          .in_template = std::move(in_template),
          .tokens = std::move(tokens),
          .is_rendered = false};
}

/// <|im_start|> and what looks like it.
void add_chatml(Families& all) {
  all.push_back(uniform({.name = "phi4",
                         .in_template = {"<|im_start|>", "<|im_sep|>"},
                         .tokens = {"<|im_start|>", "<|im_sep|>", "<|im_end|>"},
                         .any_role = true},
                        {"<|im_start|>{role}<|im_sep|>", "<|im_end|>"}));
  all.push_back(not_rendered("SmolVLM", {"<|im_start|>", "<end_of_utterance>"},
                             {"<|im_start|>", "<end_of_utterance>"}));
  all.push_back(uniform({.name = "chatml",
                         .in_template = {"<|im_start|>"},
                         .tokens = {"<|im_start|>", "<|im_end|>"},
                         .any_role = true,
                         .reasoning = {"<think>\n", "\n</think>\n\n"},
                         .reasoning_needs_template = true},
                        {"<|im_start|>{role}\n", "<|im_end|>\n"}));
  all.push_back({.name = "kimi-k2",
                 .in_template = {"<|im_assistant|>assistant<|im_middle|>"},
                 .tokens = {"<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"},
                 .system = {"<|im_system|>system<|im_middle|>", "<|im_end|>"},
                 .user = {"<|im_user|>user<|im_middle|>", "<|im_end|>"},
                 .assistant = {"<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"},
                 .tool = {"<|im_system|>tool<|im_middle|>", "<|im_end|>"}});
}

/// [INST]: Mistral's versions and Llama 2's variants.
void add_inst(Families& all) {
  // Which of two tokenizers a version is for changes its spaces. Templates do not always show it:
  // ChatFormat takes "-tekken" where the pre-tokenizer is of that name.
  all.push_back({.name = "mistral-v7",
                 .in_template = {"[INST]", "[SYSTEM_PROMPT]"},
                 .tokens = {"[INST]", "[/INST]", "[SYSTEM_PROMPT]"},
                 .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
                 .user = {"[INST] ", "[/INST]"},
                 .assistant = {" ", "{eos}"}});
  all.push_back({.name = "mistral-v7-tekken",
                 .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
                 .user = {"[INST]", "[/INST]"},
                 .assistant = {"", "{eos}"}});
  const ChatFamily v1 = {.name = "mistral-v1",
                         .in_template = {"[INST]", "' [INST] ' + system_message"},
                         .system = {"", "\n\n"},
                         .user = {" [INST] ", " [/INST]"},
                         .assistant = {" ", "{eos}"},
                         .folds_system = true};
  all.push_back(v1);
  all.push_back(v1);
  all.back().in_template = {" [INST]", "[AVAILABLE_TOOLS]"};
  all.push_back({.name = "mistral-v3-tekken",
                 .in_template = {"\"[INST]\"", "[AVAILABLE_TOOLS]"},
                 .system = {"", "\n\n"},
                 .user = {"[INST]", "[/INST]"},
                 .assistant = {"", "{eos}"},
                 .folds_system = true});
  all.push_back({.name = "mistral-v3",
                 .in_template = {"[INST]", "[AVAILABLE_TOOLS]"},
                 .tokens = {"[INST]", "[/INST]"},
                 .system = {"", "\n\n"},
                 .user = {"[INST] ", "[/INST]"},
                 .assistant = {" ", "{eos}"},
                 .trims_assistant = true,
                 .folds_system = true});
  const ChatFamily llama2 = {.name = "llama2-sys",
                             .in_template = {"[INST]", "<<SYS>>"},
                             .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
                             .user = {"[INST] ", " [/INST]"},
                             .assistant = {"", "{eos}"},
                             .folds_system = true};
  all.push_back(llama2);
  all.back().name = "llama2-sys-strip";
  all.back().in_template = {"[INST]", "content.strip()"};
  all.back().trims = true;
  all.push_back(llama2);
  all.back().name = "llama2-sys-bos";
  all.back().in_template = {"bos_token + '[INST]"};
  all.back().between = "<s>";
  all.push_back(llama2);
  all.push_back({.name = "llama2",
                 .in_template = {"[INST]"},
                 .system = {"", "\n"},
                 .user = {"[INST] ", " [/INST]"},
                 .assistant = {"", "{eos}"},
                 .folds_system = true});
}

/// <|user|> and <|assistant|>, which end in many ways.
void add_named_roles(Families& all) {
  all.push_back(uniform({.name = "phi4-mini",
                         .in_template = {"<|end|>", "message['role'] + '|>'"},
                         .not_in_template = {"'|>' + '\\n'", "'|>' + '\n'"}},
                        {"<|{role}|>", "<|end|>"}));
  all.push_back(uniform({.name = "phi3",
                         .in_template = {"<|assistant|>", "<|end|>"},
                         .tokens = {"<|user|>", "<|assistant|>", "<|end|>"}},
                        {"<|{role}|>\n", "<|end|>\n"}));
  all.push_back(uniform({.name = "glm4.5",
                         .in_template = {"[gMASK]<sop>", "<think>"},
                         .start = "[gMASK]<sop>",
                         .trims_assistant = true,
                         .reasoning = {"<think>", "</think>\n"},
                         .no_reasoning = "<think></think>\n"},
                        {"<|{role}|>\n", ""}));
  all.push_back(uniform({.name = "glm4",
                         .in_template = {"[gMASK]<sop>"},
                         .tokens = {"[gMASK]", "<sop>", "<|user|>", "<|assistant|>"},
                         .start = "[gMASK]<sop>"},
                        {"<|{role}|>\n", ""}));
  // Zephyr ends every turn with EOS; Tülu, OLMo 2 and Falcon 3 only the assistant's.
  for (bool is_escaped : {true, false}) {
    all.push_back(
        uniform({.name = "zephyr",
                 .in_template = {is_escaped ? "<|user|>\\n' + message['content'] + eos_token"
                                            : "<|user|>\n' + message['content'] + eos_token"}},
                {"<|{role}|>\n", "{eos}\n"}));
    all.push_back(uniform({.name = "tulu",
                           .in_template = {is_escaped ? "<|user|>\\n' + message['content'] + '\\n'"
                                                      : "<|user|>\n' + message['content'] + '\n'",
                                           "eos_token"}},
                          {"<|{role}|>\n", "\n"}));
    all.back().assistant = {"<|assistant|>\n", "{eos}\n"};
  }
  all.push_back(not_rendered("one with <|user|> and <|assistant|>", {"<|user|>", "<|assistant|>"},
                             {"<|user|>", "<|assistant|>"}));
}

/// Roles stand between markers of their own, as in Gemma, Command R, Llama 3.
void add_marked_turns(Families& all) {
  all.push_back(uniform({.name = "gemma4",
                         .in_template = {"<|turn>", "<turn|>"},
                         .tokens = {"<|turn>", "<turn|>"},
                         .assistant_role = "model",
                         .trims = true},
                        {"<|turn>{role}\n", "<turn|>\n"}));
  all.push_back({.name = "gemma",
                 .in_template = {"<start_of_turn>"},
                 .tokens = {"<start_of_turn>", "<end_of_turn>"},
                 .system = {"", "\n\n"},
                 .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
                 .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
                 .trims = true,
                 .folds_system = true});
  all.push_back(not_rendered("Command R7B or A", {"<|START_OF_TURN_TOKEN|>", "<|START_RESPONSE|>"},
                             {"<|START_OF_TURN_TOKEN|>", "<|START_RESPONSE|>"}));
  all.push_back({.name = "command-r",
                 .in_template = {"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"},
                 .tokens = {"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"},
                 .system = {"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
                 .user = {"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
                 .assistant = {"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
                 .trims = true});
  all.push_back(uniform({.name = "llama3",
                         .in_template = {"<|start_header_id|>", "<|end_header_id|>"},
                         .tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
                         .any_role = true,
                         .trims = true},
                        {"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>"}));
  all.push_back(uniform({.name = "llama4",
                         .in_template = {"<|header_start|>", "<|header_end|>"},
                         .tokens = {"<|header_start|>", "<|header_end|>", "<|eot|>"},
                         .any_role = true,
                         .trims = true},
                        {"<|header_start|>{role}<|header_end|>\n\n", "<|eot|>"}));
}

void add_deepseek(Families& all) {
  all.push_back({.name = "deepseek2",
                 .in_template = {"'Assistant: ' + message['content'] + eos_token"},
                 .system = {"", "\n\n"},
                 .user = {"User: ", "\n\n"},
                 .assistant = {"Assistant: ", "<｜end▁of▁sentence｜>"}});
  all.push_back({.name = "deepseek3",
                 .in_template = {"<｜Assistant｜>", "<｜User｜>"},
                 .tokens = {"<｜Assistant｜>", "<｜User｜>"},
                 .user = {"<｜User｜>", ""},
                 .assistant = {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"}});
}

void add_others(Families& all) {
  all.push_back(uniform({.name = "granite",
                         .in_template = {"<|start_of_role|>"},
                         .tokens = {"<|start_of_role|>", "<|end_of_role|>"}},
                        {"<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>\n"}));
  all.push_back({.name = "gpt-oss",
                 .in_template = {"<|start|>", "<|message|>", "<|channel|>"},
                 .tokens = {"<|start|>", "<|message|>", "<|channel|>", "<|return|>"},
                 .system = {"<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"},
                 .user = {"<|start|>user<|message|>", "<|end|>"},
                 .assistant = {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"},
                 .last_after = "<|return|>",
                 .reasoning = {"<|start|>assistant<|channel|>analysis<|message|>", "<|end|>"},
                 .reasoning_is_turn = true});
  all.push_back(uniform({.name = "seed-oss",
                         .in_template = {"<seed:bos>"},
                         .tokens = {"<seed:bos>", "<seed:eos>"},
                         .any_role = true,
                         .trims_assistant = true,
                         .reasoning = {"<seed:think>", "</seed:think>\n"}},
                        {"<seed:bos>{role}\n", "<seed:eos>"}));
}

void add_not_rendered(Families& all) {
  all.push_back(not_rendered("Solar Open", {"<|begin|>", "<|content|>"}));
  all.push_back(not_rendered("dots.llm1", {"<|endofuserprompt|>"}));
  all.push_back(not_rendered("MiniMax", {"]~b]"}));
  all.push_back(not_rendered("Hunyuan", {"<｜hy_"}));
  all.push_back(not_rendered("Hunyuan", {"<|startoftext|>", "<|extra_"}));
  all.push_back(not_rendered("EXAONE", {"[|assistant|]"}));
  all.push_back(not_rendered("Megrez", {"<|role_start|>"}));
  all.push_back(not_rendered("Ling", {"<role>"}));
  all.push_back(not_rendered("GigaChat", {"<|role_sep|>"}));
  all.push_back(not_rendered("Grok", {"<|separator|>"}));
  all.push_back(not_rendered("OpenChat", {"GPT4 Correct "}));
  all.push_back(not_rendered("Vicuna", {"USER: ", "ASSISTANT: "}));
}

Families make_families() {
  Families all;
  add_chatml(all);
  add_inst(all);
  add_named_roles(all);
  add_marked_turns(all);
  add_deepseek(all);
  add_others(all);
  add_not_rendered(all);
  return all;
}

}  // namespace

const std::vector<ChatFamily>& chat_families() {
  static const Families all = make_families();
  return all;
}

std::string rendered_chat_families() {
  std::string names;
  for (const ChatFamily& family : chat_families()) {
    if (family.is_rendered && names.find(family.name) == std::string::npos)
      names += fmt::format("{}{}", names.empty() ? "" : ", ", family.name);
  }
  return names;
}

}  // namespace spectralquant::text
