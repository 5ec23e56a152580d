#include "spectralquant/text/unicode.h"

#include <algorithm>
#include <vector>

#include "spectralquant/core/utf8.h"

namespace spectralquant::text {
namespace {

struct Range {
  std::uint32_t first, last;
  char kind;
};

constexpr Range kRanges[] = {
#include "spectralquant/text/unicode_ranges.inc"
};

constexpr char32_t kCodePoints = 0x110000;

std::vector<char> unfold_ranges() {
  std::vector<char> classes(kCodePoints, static_cast<char>(CharClass::kOther));
  for (const Range& range : kRanges)
    std::fill(classes.begin() + range.first, classes.begin() + range.last + 1, range.kind);
  return classes;
}

bool is_continuation(std::string_view text, std::size_t position) {
  return position < text.size() && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80;
}

}  // namespace

CharClass class_of(char32_t code_point) {
  // 1.1 MB: one load a character instead of a search
  static const std::vector<char> classes = unfold_ranges();
  return code_point < kCodePoints ? static_cast<CharClass>(classes[code_point]) : CharClass::kOther;
}

char32_t next_code_point(std::string_view text, std::size_t& position) {
  const auto first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) {
    ++position;
    return first;
  }
  // by length: anything below is an overlong form
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const std::size_t length = utf8_length(first);
  bool valid = length > 1 && first < 0xF8;
  for (std::size_t i = 1; valid && i < length; ++i) valid = is_continuation(text, position + i);
  char32_t code_point = first & (0x7F >> length);
  for (std::size_t i = 1; valid && i < length; ++i)
    code_point = code_point << 6 | (static_cast<unsigned char>(text[position + i]) & 0x3F);
  if (!valid || code_point < kSmallest[length] || code_point >= kCodePoints) {
    ++position;
    return kReplacement;
  }
  position += length;
  return code_point;
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t position = 0; position < text.size();) {
    const std::size_t length = utf8_sequence(text.substr(position));
    if (length == 0) return position;
    position += length;
  }
  return std::string_view::npos;
}

}  // namespace spectralquant::text
