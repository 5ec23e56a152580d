#include "spectralquant/core/shell_word.h"

#include <array>
#include <cstdio>

#include "spectralquant/core/printable.h"

namespace spectralquant {
namespace {

constexpr std::string_view kPlain =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";

/// ANSI-C quoting: bytes that are not printable ASCII become three octal digits, which end by
/// themselves; \x would take hexadecimal digits that follow it.
std::string ansi_c_quoted(std::string_view text) {
  std::string out = "$'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c >= 0x20 && c < 0x7f) {
      out += c;
    } else {
      std::array<char, 8> octal{};
      std::snprintf(octal.data(), octal.size(), "\\%03o",
                    static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += octal.data();
    }
  }
  return out + "'";
}

}  // namespace

std::string shell_word(std::string_view text) {
  text = text.substr(0, text.find('\0'));
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos)
    return std::string(text);
  if (printable(text) != text) return ansi_c_quoted(text);
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string shell_path(std::string_view path) {
  return shell_word(path.starts_with('-') ? "./" + std::string(path) : std::string(path));
}

}  // namespace spectralquant
