#pragma once
#include <string>
#include <string_view>

namespace spectralquant::text {

inline constexpr std::string_view kSpaceMark = "▁";  ///< stands for a space in token texts

/// Appends text with its spaces as marks.
inline void append_marked(std::string& out, std::string_view text) {
  for (char c : text) {
    if (c == ' ') {
      out += kSpaceMark;
    } else {
      out += c;
    }
  }
}

/// The text that a token's text stands for: marks become spaces.
inline std::string unmarked(std::string_view token) {
  std::string text;
  for (std::size_t at = 0; at < token.size();) {
    const bool is_mark = token.substr(at).starts_with(kSpaceMark);
    text += is_mark ? ' ' : token[at];
    at += is_mark ? kSpaceMark.size() : 1;
  }
  return text;
}

}  // namespace spectralquant::text
