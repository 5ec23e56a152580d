#include "spectralquant/text/tool_calls.h"

#include <fmt/format.h>

#include "spectralquant/text/json_records.h"

namespace spectralquant::text {
namespace {

using Json = JsonRecord;

/// A value as Jinja prints it: texts bare, Python's names for the constants.
std::string printed(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return value.is_null() ? "None" : spaced_json(value);
}

std::string xml_of(const std::string& name, const Json& arguments) {
  std::string text = fmt::format("<tool_call>\n<function={}>\n", name);
  for (const auto& [key, value] : arguments.items())
    text += fmt::format("<parameter={}>\n{}\n</parameter>\n", key, printed(value));
  return text + "</function>\n</tool_call>";
}

}  // namespace

std::string render_tool_calls(const std::vector<ToolCall>& calls, ToolStyle style, bool has_content,
                              LeftOut& left_out) {
  std::string text;
  for (const ToolCall& call : calls) {
    const Json arguments = Json::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
    std::string one;
    if (style == ToolStyle::kJson) {
      one = fmt::format("<tool_call>\n{{\"name\": \"{}\", \"arguments\": {}}}\n</tool_call>",
                        call.name, call.arguments);
    } else if (style == ToolStyle::kXml && arguments.is_object()) {
      one = xml_of(call.name, arguments);
    } else {
      ++left_out.tool_calls;
      continue;
    }
    if (!text.empty()) {
      text += "\n";
    } else if (has_content) {
      text += style == ToolStyle::kXml ? "\n\n" : "\n";
    }
    text += one;
  }
  return text;
}

}  // namespace spectralquant::text
