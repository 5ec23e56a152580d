#include "spectralquant/core/markdown_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/core/printable.h"

namespace spectralquant {
namespace {

/// ASCII letters and digits, and all bytes of other scripts.
bool in_word(std::string_view text, std::size_t i) {
  if (i >= text.size()) return false;
  const auto c = static_cast<unsigned char>(text[i]);
  return c >= 0x80 || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

bool is_sign(std::string_view text, std::size_t i) {
  const char c = text[i];
  if (c == '_') return i == 0 || !in_word(text, i - 1) || !in_word(text, i + 1);
  if (c == '&') return i + 1 < text.size() && (text[i + 1] == '#' || in_word(text, i + 1));
  return std::string_view("\\`*{}[]<>|#~$").find(c) != std::string_view::npos;
}

/// Length of the longest run of backticks.
std::size_t longest_run(std::string_view text) {
  std::size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

}  // namespace

std::string markdown_text(const std::string& text) {
  const std::string shown = printable(text);
  std::string out;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    if (is_sign(shown, i)) out += '\\';
    out += shown[i];
  }
  return out;
}

std::string markdown_code(std::string_view text) {
  // a span cannot escape a backtick, nor can a table's cell hold a bare bar; edges lose a space
  if (text.empty() || text.find_first_of("`|") != std::string_view::npos || text.front() == ' ' ||
      text.back() == ' ')
    return fmt::format("<code>{}</code>", markdown_text(std::string(text)));
  return fmt::format("`{}`", printable(text));
}

std::string markdown_fence(std::string_view language, std::string_view lines) {
  const std::string shown = printable(lines, Breaks::kKept);
  const std::string fence(std::max<std::size_t>(3, longest_run(shown) + 1), '`');
  return fmt::format("{}{}\n{}{}{}\n", fence, language, shown, shown.ends_with('\n') ? "" : "\n",
                     fence);
}

}  // namespace spectralquant
