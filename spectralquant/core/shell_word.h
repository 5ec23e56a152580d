#pragma once
#include <string>
#include <string_view>

namespace spectralquant {

/// A text as one word of a command that is pasted into bash: it arrives there byte for byte.
///
/// What needs no quoting is left as it is; all else stands in single quotes. Text that printable()
/// would change stands in $'…', so that the command can be shown too. A NUL ends the word: no
/// argument of a program can hold one.
std::string shell_word(std::string_view text);

/// shell_word() of a path: one that begins with a dash gets "./" in front, or it would be taken
/// for an option.
std::string shell_path(std::string_view path);

}  // namespace spectralquant
