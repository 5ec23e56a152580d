#pragma once
#include <string>
#include <string_view>

namespace spectralquant {

/// What becomes of line breaks and tabs.
enum class Breaks {
  kShown,  ///< shown as \n and \t: a name or a value stays on its line
  kKept,   ///< kept: text of several lines
};

/// Text from a file as it may be shown to people: nothing in it commands a terminal or a page.
///
/// Control characters (C0, DEL, C1), the controls of writing direction (U+061C, U+200E, U+200F,
/// U+202A to U+202E, U+2066 to U+2069), separators of lines and paragraphs (U+2028, U+2029) and
/// U+FFFE, U+FFFF become escapes: \n, \x1b, \u202e. A byte that belongs to no UTF-8 sequence
/// becomes \xe9. All other text stays as it is, so that printable(printable(t)) = printable(t).
/// Source   Unicode 15.1: general category Cc, property Bidi_Control.
std::string printable(std::string_view text, Breaks breaks = Breaks::kShown);

/// The beginning of printable text, at most `max_bytes` long and not cut inside a character.
std::string_view beginning_of(std::string_view text, std::size_t max_bytes);

}  // namespace spectralquant
