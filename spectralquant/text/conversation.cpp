#include "spectralquant/text/conversation.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "spectralquant/core/error.h"

namespace spectralquant::text {
namespace {

using Json = JsonRecord;

constexpr const char* kMessageFix =
    R"(a chat is {"messages": [{"role": "user", "content": "…"}, …]})";

/// The first of the keys that is there and not null.
const Json* find_any(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (const auto found = object.find(key); found != object.end() && !found->is_null())
      return &*found;
  return nullptr;
}

bool has_any(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (object.contains(key)) return true;
  return false;
}

std::string role_named(const std::string& name) {
  static const std::map<std::string, std::string> kNames = {
      {"human", "user"},         {"gpt", "assistant"},    {"chatgpt", "assistant"},
      {"model", "assistant"},    {"bot", "assistant"},    {"developer", "system"},
      {"function", "tool"},      {"observation", "tool"}, {"function_response", "tool"},
      {"tool_response", "tool"}, {"tool_result", "tool"}};
  const auto found = kNames.find(name);
  return found == kNames.end() ? name : found->second;
}

std::string text_in(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

void add_content(const Json& content, const std::string& origin, Message& message, Losses& losses) {
  if (content.is_string()) {
    message.content += content.get<std::string>();
    return;
  }
  if (!content.is_array())
    throw bad_input("the content of a message is no text", origin, kMessageFix);
  for (const Json& part : content) {
    if (part.is_string()) {
      message.content += part.get<std::string>();
      continue;
    }
    const std::string type = part.is_object() ? text_in(part, "type") : std::string();
    if (type == "thinking" || type == "reasoning") {
      message.reasoning += text_in(part, "thinking") + text_in(part, "text");
    } else if (part.is_object() && part.contains("text") && part["text"].is_string()) {
      message.content += part["text"].get<std::string>();
    } else {
      ++losses.parts[type.empty() ? "of no type" : type];
    }
  }
}

/// {"name", "arguments"}, or that inside of "function".
std::optional<ToolCall> parse_call(const Json& value) {
  if (!value.is_object()) return std::nullopt;
  const Json* function = find_any(value, {"function"});
  const Json& call = function ? *function : value;
  if (!call.is_object()) return std::nullopt;
  const std::string name = text_in(call, "name");
  const Json* arguments = find_any(call, {"arguments", "parameters"});
  if (name.empty()) return std::nullopt;
  if (!arguments) return ToolCall{name, "{}"};
  if (arguments->is_string()) return ToolCall{name, arguments->get<std::string>()};
  if (!arguments->is_object()) return std::nullopt;
  return ToolCall{name, spaced_json(*arguments)};
}

void add_calls(const Json& calls, Message& message, Losses& losses) {
  for (const Json& value : calls.is_array() ? calls : Json::array({calls})) {
    if (auto call = parse_call(value)) {
      message.tool_calls.push_back(std::move(*call));
    } else {
      ++losses.odd_calls;
    }
  }
}

Message parse_message(const Json& item, const std::string& origin, Losses& losses) {
  const Json* role = item.is_object() ? find_any(item, {"role", "from"}) : nullptr;
  if (!role || !role->is_string()) throw bad_input("a message lacks \"role\"", origin, kMessageFix);
  Message message{role_named(role->get<std::string>())};
  if (!has_any(item, {"content", "value", "tool_calls", "function_call", "reasoning_content"}))
    throw bad_input("a message lacks \"content\"", origin, kMessageFix);
  if (const Json* content = find_any(item, {"content", "value"}))
    add_content(*content, origin, message, losses);
  if (const Json* reasoning = find_any(item, {"reasoning_content", "reasoning", "thinking"})) {
    if (reasoning->is_string()) message.reasoning = reasoning->get<std::string>();
  }
  if (const Json* calls = find_any(item, {"tool_calls", "function_call"}))
    add_calls(*calls, message, losses);
  if (message.role == "function_call") {  // ShareGPT: the call is the text
    const std::string text = std::exchange(message.content, {});
    add_calls(Json::parse(text, nullptr, /*allow_exceptions=*/false), message, losses);
    message.role = "assistant";
  }
  return message;
}

}  // namespace

std::vector<Message> parse_messages(const Json& list, const std::string& origin, Losses& losses) {
  if (!list.is_array()) throw bad_input("\"messages\" is no list of messages", origin, kMessageFix);
  std::vector<Message> messages;
  for (const Json& item : list) messages.push_back(parse_message(item, origin, losses));
  return messages;
}

std::string Losses::to_note(const std::string& path, const std::string& format_name) const {
  std::string lost;
  const auto add = [&](std::size_t n, std::string_view one, std::string_view many) {
    if (n > 0) lost += fmt::format("{}{} {}", lost.empty() ? "" : ", ", n, n == 1 ? one : many);
  };
  add(empty_records, "record without text", "records without text");
  for (const auto& [type, n] : parts)
    add(n, fmt::format("part ({})", type), fmt::format("parts ({})", type));
  add(odd_calls, "tool call of no known form", "tool calls of no known form");
  add(left_out.reasoning, "turn's reasoning", "turns' reasoning");
  add(left_out.tool_calls, "tool call", "tool calls");
  add(left_out.tool_turns, "tool's answer", "tools' answers");
  add(left_out.turns, "turn of another role", "turns of other roles");
  if (lost.empty()) return {};
  const std::size_t n =
      left_out.reasoning + left_out.tool_calls + left_out.tool_turns + left_out.turns;
  return fmt::format("{}: left out {}{}", path, lost,
                     n > 0 ? fmt::format(" (the chat format {} has no place for {})", format_name,
                                         n == 1 ? "it" : "them")
                           : "");
}

}  // namespace spectralquant::text
