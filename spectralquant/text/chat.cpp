#include "spectralquant/text/chat.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace spectralquant::text {
namespace {

/// How a family is recognised.
struct Family {
  std::string_view name;
  std::vector<std::string_view> in_template;  ///< all of them in tokenizer.chat_template
  std::vector<std::string_view> tokens;       ///< all of them in the vocabulary
};

/// In the order they are tried: Phi 3 has Zephyr's <|user|>, too.
const std::vector<Family>& families() {
  static const std::vector<Family> all = {
      {"chatml", {"<|im_start|>"}, {"<|im_start|>", "<|im_end|>"}},
      {"llama3",
       {"<|start_header_id|>"},
       {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
      {"gemma", {"<start_of_turn>"}, {"<start_of_turn>", "<end_of_turn>"}},
      {"phi3", {"<|user|>", "<|end|>"}, {"<|user|>", "<|assistant|>", "<|end|>"}},
      {"zephyr", {"<|user|>"}, {"<|user|>", "<|assistant|>"}},
      {"mistral", {"[INST]"}, {"[INST]", "[/INST]"}},
  };
  return all;
}

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

/// Gemma and Mistral know no system turn: its text goes before the user's next one.
std::vector<Message> fold_system_turns(const std::vector<Message>& messages) {
  std::vector<Message> folded;
  std::string system;
  for (const Message& message : messages) {
    if (message.role == "system") {
      system += std::string(trim(message.content)) + "\n\n";
      continue;
    }
    folded.push_back(message);
    if (message.role == "user" && !system.empty())
      folded.back().content.insert(0, std::exchange(system, {}));
  }
  if (!system.empty()) folded.push_back({"user", std::string(trim(system))});
  return folded;
}

}  // namespace

ChatFormat ChatFormat::from_metadata(const gguf::Metadata& metadata) {
  const std::string_view chat_template = metadata.string_or("tokenizer.chat_template", "");
  std::vector<std::string_view> tokens;
  if (const gguf::Value* value = metadata.find("tokenizer.ggml.tokens")) tokens = value->strings();
  ChatFormat format;
  format.name_ = "plain";
  format.end_of_turn_ = "</s>";
  const std::int64_t eos = metadata.int_or("tokenizer.ggml.eos_token_id", -1);
  if (eos >= 0 && static_cast<std::size_t>(eos) < tokens.size()) format.end_of_turn_ = tokens[eos];

  const auto in_template = [&](std::string_view text) {
    return chat_template.find(text) != std::string_view::npos;
  };
  const auto is_token = [&](std::string_view text) {
    return std::find(tokens.begin(), tokens.end(), text) != tokens.end();
  };
  for (const Family& family : families()) {
    if (std::all_of(family.in_template.begin(), family.in_template.end(), in_template)) {
      format.name_ = family.name;
      return format;
    }
  }
  for (const Family& family : families()) {
    if (std::all_of(family.tokens.begin(), family.tokens.end(), is_token)) {
      format.name_ = family.name;
      return format;
    }
  }
  return format;
}

std::string ChatFormat::render(const std::vector<Message>& messages) const {
  const bool no_system = name_ == "gemma" || name_ == "mistral";
  std::string text;
  for (const auto& [role, content] : no_system ? fold_system_turns(messages) : messages) {
    if (name_ == "chatml") {
      text += "<|im_start|>" + role + "\n" + content + "<|im_end|>\n";
    } else if (name_ == "llama3") {
      text += "<|start_header_id|>" + role + "<|end_header_id|>\n\n" + std::string(trim(content)) +
              "<|eot_id|>";
    } else if (name_ == "gemma") {
      text += "<start_of_turn>" + (role == "assistant" ? "model" : role) + "\n" +
              std::string(trim(content)) + "<end_of_turn>\n";
    } else if (name_ == "phi3") {
      text += "<|" + role + "|>\n" + content + "<|end|>\n";
    } else if (name_ == "zephyr") {
      text += "<|" + role + "|>\n" + content + end_of_turn_ + "\n";
    } else if (name_ == "mistral") {
      text += role == "assistant" ? " " + std::string(trim(content)) + end_of_turn_
                                  : "[INST] " + content + "[/INST]";
    } else {
      text += role + ": " + content + "\n";
    }
  }
  return text;
}

}  // namespace spectralquant::text
