#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace spectralquant {

/// The text of a JSON value; the only way in which the project writes one.
///
/// Never fails: bytes that are not UTF-8, as names of files may have, become U+FFFD. What would
/// command a terminal is escaped, so that the text can be shown.
/// indent   spaces a level; -1: all in one line.
std::string json_text(const nlohmann::json& value, int indent = -1);
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);

/// The text with bytes that are not UTF-8 replaced by U+FFFD.
std::string valid_utf8(std::string_view text);

}  // namespace spectralquant
