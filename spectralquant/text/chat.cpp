#include "spectralquant/text/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/text/chat_families.h"
#include "spectralquant/text/tool_calls.h"

namespace spectralquant::text {
namespace {

using Texts = ChatFamily::Texts;

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

bool holds(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

const ChatFamily* family_named(std::string_view name) {
  for (const ChatFamily& family : chat_families())
    if (family.name == name) return &family;
  return nullptr;
}

const ChatFamily* family_of_template(std::string_view chat_template) {
  const auto is_in = [&](std::string_view text) { return holds(chat_template, text); };
  for (const ChatFamily& family : chat_families()) {
    if (!family.in_template.empty() &&
        std::all_of(family.in_template.begin(), family.in_template.end(), is_in) &&
        std::none_of(family.not_in_template.begin(), family.not_in_template.end(), is_in))
      return &family;
  }
  return nullptr;
}

const ChatFamily* family_of_vocabulary(const Texts& tokens) {
  const auto is_token = [&](std::string_view text) {
    return std::find(tokens.begin(), tokens.end(), text) != tokens.end();
  };
  for (const ChatFamily& family : chat_families()) {
    if (!family.tokens.empty() && std::all_of(family.tokens.begin(), family.tokens.end(), is_token))
      return &family;
  }
  return nullptr;
}

/// Index of the last turn of a user; reasoning behind it is always shown.
std::size_t last_question(const std::vector<Message>& messages) {
  for (std::size_t i = messages.size(); i-- > 0;)
    if (messages[i].role == "user") return i;
  return 0;
}

}  // namespace

ChatFormat ChatFormat::from_metadata(const gguf::Metadata& metadata) {
  const std::string_view chat_template = metadata.string_or("tokenizer.chat_template", "");
  Texts tokens;
  if (const gguf::Value* value = metadata.find("tokenizer.ggml.tokens")) tokens = value->strings();
  ChatFormat format;
  format.place_ = metadata.place;
  const std::int64_t eos = metadata.int_or("tokenizer.ggml.eos_token_id", -1);
  if (eos >= 0 && static_cast<std::size_t>(eos) < tokens.size()) format.end_of_turn_ = tokens[eos];
  format.choose_family(chat_template, tokens, metadata.string_or("tokenizer.ggml.pre", ""));
  format.choose_extras(chat_template, metadata.string_or("general.architecture", ""));
  return format;
}

void ChatFormat::choose_family(std::string_view chat_template, const Texts& tokens,
                               std::string_view pretokenizer) {
  family_ =
      chat_template.empty() ? family_of_vocabulary(tokens) : family_of_template(chat_template);
  if (family_ && pretokenizer == "tekken") {
    if (const auto* tekken = family_named(std::string(family_->name) + "-tekken")) family_ = tekken;
  }
  if (family_) {
    name_ = family_->name;
  } else if (!chat_template.empty()) {
    name_ = "unknown";
  }
}

/// What families do in some of their models only: reasoning and tools.
void ChatFormat::choose_extras(std::string_view chat_template, std::string_view architecture) {
  if (!family_) return;
  // No template, but known models: Qwen 3 and Qwen 3.5 think, each with tools of its own.
  const bool is_qwen3 = chat_template.empty() && architecture.starts_with("qwen3");
  const bool is_qwen35 = is_qwen3 && architecture.starts_with("qwen35");
  shows_reasoning_ =
      !family_->reasoning.before.empty() &&
      (!family_->reasoning_needs_template || is_qwen3 || holds(chat_template, "<think>"));
  only_last_reasoning_ = is_qwen3 || family_->reasoning_is_turn ||
                         holds(chat_template, "last_query_index") ||
                         holds(chat_template, "last_user_index");
  const bool knows_tools = holds(chat_template, "'tool'") || holds(chat_template, "\"tool\"");
  if (name_ == "chatml" && (is_qwen3 || holds(chat_template, "<tool_response>"))) {
    tools_ = is_qwen35 || holds(chat_template, "<function=") ? ToolStyle::kXml : ToolStyle::kJson;
  } else if (!family_->tool.before.empty() || (family_->any_role && !knows_tools)) {
    tools_ = ToolStyle::kByRole;
  }
}

std::string ChatFormat::filled(std::string_view markers, std::string_view role) const {
  std::string text(markers);
  for (const auto& [name, value] :
       {std::pair<std::string_view, std::string_view>{"{role}", role}, {"{eos}", end_of_turn_}}) {
    if (const std::size_t at = text.find(name); at != std::string::npos)
      text.replace(at, name.size(), value);
  }
  return text;
}

std::string ChatFormat::plain(const std::vector<Message>& messages, LeftOut& left_out) const {
  std::string text;
  for (const Message& message : messages) {
    left_out.reasoning += !message.reasoning.empty();
    left_out.tool_calls += message.tool_calls.size();
    text += message.role + ": " + message.content + "\n";
  }
  return text;
}

std::string ChatFormat::assistant_turn(const Message& message, bool keeps_reasoning, bool is_last,
                                       LeftOut& left_out) const {
  const ChatFamily& family = *family_;
  std::string content = message.content, reasoning;
  if (family.trims || family.trims_assistant) content = trimmed(content);
  if (!message.reasoning.empty()) {
    if (shows_reasoning_ && keeps_reasoning) {
      reasoning = std::string(family.reasoning.before) + std::string(trimmed(message.reasoning)) +
                  std::string(family.reasoning.after);
    } else {
      ++left_out.reasoning;
    }
  }
  const std::string calls =
      render_tool_calls(message.tool_calls, tools_, !trimmed(content).empty(), left_out);
  // A turn that held nothing but calls goes with them.
  if (!message.tool_calls.empty() && content.empty() && calls.empty() && reasoning.empty())
    return {};
  if (reasoning.empty()) reasoning = family.no_reasoning;
  const std::string before = filled(family.assistant.before, family.assistant_role);
  const std::string_view after =
      is_last && !family.last_after.empty() ? family.last_after : family.assistant.after;
  return (family.reasoning_is_turn ? reasoning + before : before + reasoning) + content + calls +
         filled(after, family.assistant_role);
}

bool ChatFormat::is_known() const { return family_ ? family_->is_rendered : name_ == "plain"; }

void ChatFormat::require_known() const {
  if (is_known()) return;
  throw bad_input(
      family_ ? fmt::format("chats cannot be written in the format of {}", family_->name)
              : "the model's chat template is of no known family",
      place_,
      fmt::format("give the chats as texts, {{\"text\": …}}, written by the model's own template "
                  "(transformers: tokenizer.apply_chat_template); known families are {}",
                  rendered_chat_families()));
}

/// A turn of a user, or of a role that looks like one.
std::string ChatFormat::user_turn(const std::string& role, std::string_view content) const {
  return filled(family_->user.before, role) + std::string(content) +
         filled(family_->user.after, role);
}

/// Answers of tools from messages[i] on, which share one turn; i becomes the last one's index.
std::string ChatFormat::tool_turn(const std::vector<Message>& messages, std::size_t& i) const {
  std::string text = "<|im_start|>user";
  for (;; ++i) {
    text += "\n<tool_response>\n" + messages[i].content + "\n</tool_response>";
    if (i + 1 == messages.size() || messages[i + 1].role != "tool") return text + "<|im_end|>\n";
  }
}

std::string ChatFormat::render(const std::vector<Message>& messages, LeftOut* left_out) const {
  require_known();
  LeftOut not_asked_for;
  LeftOut& out = left_out ? *left_out : not_asked_for;
  if (!family_) return plain(messages, out);
  const ChatFamily& family = *family_;
  const std::size_t question = only_last_reasoning_ ? last_question(messages) : 0;
  std::string text(family.start), system;
  bool is_first_question = true;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const std::string_view content =
        family.trims ? trimmed(messages[i].content) : std::string_view(messages[i].content);
    if (role == "system") {
      (family.folds_system ? system : text) += filled(family.system.before, role) +
                                               std::string(content) +
                                               filled(family.system.after, role);
    } else if (role == "assistant") {
      text += assistant_turn(messages[i], i >= question, i + 1 == messages.size(), out);
    } else if (role == "tool" && (tools_ == ToolStyle::kJson || tools_ == ToolStyle::kXml)) {
      text += tool_turn(messages, i);
    } else if (role == "tool" && tools_ == ToolStyle::kByRole && !family.tool.before.empty()) {
      text +=
          std::string(family.tool.before) + std::string(content) + std::string(family.tool.after);
    } else if (role == "user" ||
               (family.any_role && (role != "tool" || tools_ == ToolStyle::kByRole))) {
      if (!std::exchange(is_first_question, false)) text += family.between;
      text += user_turn(role, std::exchange(system, {}) + std::string(content));
    } else {
      ++(role == "tool" ? out.tool_turns : out.turns);
    }
  }
  if (!system.empty()) text += user_turn("user", trimmed(system));  // no user took it up
  return text;
}

}  // namespace spectralquant::text
