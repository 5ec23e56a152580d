#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::text {

/// A function that an assistant asks for.
struct ToolCall {
  std::string name;
  std::string arguments;  ///< JSON of an object
};

struct Message {
  std::string role;  ///< "system", "user", "assistant", "tool"
  std::string content = {};
  std::string reasoning = {};  ///< what an assistant thought before it answered
  std::vector<ToolCall> tool_calls = {};
};

/// How much of a chat the model's format has no place for.
struct LeftOut {
  std::size_t reasoning = 0;   ///< turns whose reasoning is left out
  std::size_t tool_calls = 0;  ///< calls
  std::size_t tool_turns = 0;  ///< answers of tools
  std::size_t turns = 0;       ///< turns of other roles
};

/// How tools stand in a chat.
enum class ToolStyle {
  kNone,    ///< not at all
  kByRole,  ///< answers are turns of the role "tool", calls are left out
  kJson,    ///< <tool_call> with JSON: Qwen 2.5, Qwen 3, Hermes
  kXml,     ///< <tool_call> with <function=…>: Qwen3-Coder, Qwen 3.5
};

struct ChatFamily;

/// The markers a model was trained to see around chat turns.
///
/// Found in its chat template, or where it has none in its vocabulary; the families are listed in
/// chat_families.cpp. A template of no known family is not guessed: such a model cannot be given
/// chats. One with neither template nor markers gets "role: content" lines. Not a Jinja engine: a
/// template's own system texts, declarations of tools and switches are not run. BOS is not written:
/// the tokenizer puts it first where the model wants it.
class ChatFormat {
 public:
  static ChatFormat from_metadata(const gguf::Metadata& metadata);

  /// The chat as text; adds to *left_out what the format has no place for.
  ///
  /// Reasoning of turns before the last question is left out where the template does so.
  /// Errors   Error(kBadInput) if the model's chat format is not known.
  std::string render(const std::vector<Message>& messages, LeftOut* left_out = nullptr) const;

  /// Whether render() can write chats as the model was trained on them, or as plain lines where it
  /// has no format of its own.
  bool is_known() const;

  const std::string& name() const { return name_; }  ///< "chatml", "llama3", …, "plain"

 private:
  void choose_family(std::string_view chat_template, const std::vector<std::string_view>& tokens,
                     std::string_view pretokenizer);
  void choose_extras(std::string_view chat_template, std::string_view architecture);
  void require_known() const;
  std::string plain(const std::vector<Message>& messages, LeftOut& left_out) const;
  std::string assistant_turn(const Message& message, bool keeps_reasoning, bool is_last,
                             LeftOut& left_out) const;
  std::string user_turn(const std::string& role, std::string_view content) const;
  std::string tool_turn(const std::vector<Message>& messages, std::size_t& i) const;
  std::string filled(std::string_view markers, std::string_view role) const;

  std::string name_ = "plain";
  std::string place_;
  const ChatFamily* family_ = nullptr;  ///< nullptr: plain
  bool shows_reasoning_ = false;
  bool only_last_reasoning_ = false;  ///< not that of turns before the last question
  ToolStyle tools_ = ToolStyle::kNone;
  std::string end_of_turn_ = "</s>";  ///< text of EOS, for the families that end a turn with it
};

}  // namespace spectralquant::text
