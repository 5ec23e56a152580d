#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spectralquant::text {

/// What pre-tokenizer patterns can tell apart: the first letter of the general category, white
/// space first.
enum class CharClass : char {
  kLetter = 'L',
  kNumber = 'N',
  kMark = 'M',
  kPunctuation = 'P',
  kSymbol = 'S',
  kSpace = 'Z',
  kOther = 'O',
};

/// Class of a code point that is not ASCII, by Unicode 15.1.
///
/// The table is our own because ids must not depend on the Unicode version of an installed library.
/// Source  llama.cpp's unicode-data.cpp has the same classes (compared for every code point).
CharClass class_of(char32_t code_point);

inline constexpr char32_t kReplacement = 0xFFFD;

/// Reads the code point at text[position] and moves position behind it.
///
/// Like llama.cpp: a byte that begins no valid sequence (an overlong form is none) is one U+FFFD;
/// surrogates pass.
char32_t next_code_point(std::string_view text, std::size_t& position);

void append_utf8(std::string& out, char32_t code_point);

/// Offset of the first byte that is not strict UTF-8; npos if all is well.
std::size_t find_invalid_utf8(std::string_view text);

/// Length of a UTF-8 sequence by its first byte: 1 to 4.
inline std::size_t utf8_length(unsigned char first) {
  return first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

}  // namespace spectralquant::text
