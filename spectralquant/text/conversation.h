#pragma once
#include <map>
#include <string>
#include <vector>

#include "spectralquant/text/chat.h"
#include "spectralquant/text/json_records.h"

namespace spectralquant::text {

/// Parts of a file that become no text, counted to be told.
struct Losses {
  std::size_t empty_records = 0;             ///< records without text
  std::map<std::string, std::size_t> parts;  ///< of a message's content, by type: "image_url"
  std::size_t odd_calls = 0;                 ///< tool calls of no known form
  LeftOut left_out;                          ///< by the chat format

  /// One line for people, such as "a.jsonl: left out 2 parts (image_url)"; "" if nothing was lost.
  std::string to_note(const std::string& path, const std::string& format_name) const;
};

/// Messages of a chat in the forms of OpenAI (role, content) and ShareGPT (from, value).
///
/// Content is a text, null, or a list of parts whose texts are joined; all other parts are counted
/// in losses. Reasoning is taken from `reasoning_content`, `reasoning` or `thinking`, calls from
/// `tool_calls` or `function_call`. Roles have many names: "human" is "user", "gpt" is "assistant",
/// "developer" is "system", "function" and "observation" are "tool".
/// Errors   Error(kBadInput) with origin: no list, a message without role, or with nothing in it.
std::vector<Message> parse_messages(const JsonRecord& list, const std::string& origin,
                                    Losses& losses);

}  // namespace spectralquant::text
