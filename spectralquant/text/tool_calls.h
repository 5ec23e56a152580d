#pragma once
#include <string>
#include <vector>

#include "spectralquant/text/chat.h"

namespace spectralquant::text {

/// The calls of one turn as text to stand behind its content; "" if the style has no calls.
///
/// Adds to left_out the calls that cannot be written: in a style without calls all of them, in XML
/// those whose arguments are no JSON object.
/// Source  the chat templates of Qwen 3 (kJson) and Qwen 3.5 (kXml).
std::string render_tool_calls(const std::vector<ToolCall>& calls, ToolStyle style, bool has_content,
                              LeftOut& left_out);

}  // namespace spectralquant::text
