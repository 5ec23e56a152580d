#pragma once
#include <cstddef>
#include <string_view>

namespace spectralquant {

/// What some writers put in front of a UTF-8 text; no part of it.
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Bytes of the UTF-8 sequence at the beginning of `text`: 1 to 4; 0 if there is none.
///
/// Strict: overlong forms, surrogates and code points above U+10FFFF are no sequences.
std::size_t utf8_sequence(std::string_view text);

}  // namespace spectralquant
