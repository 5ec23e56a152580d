#pragma once
#include <string>
#include <string_view>

namespace spectralquant {

/// Text as Markdown that shows exactly it, on one line: no markup, no HTML, no cell of a table
/// ends in it; what is not printable() is shown as an escape.
///
/// An underscore inside a word is no markup, and is left alone.
/// Source   CommonMark 0.31, GitHub's tables and strikethrough, `$` of hubs that typeset formulas.
std::string markdown_text(const std::string& text);

/// Text as a code span, which may stand in a table.
std::string markdown_code(std::string_view text);

/// Lines in a fence that none of them can close; `language` may be "".
std::string markdown_fence(std::string_view language, std::string_view lines);

}  // namespace spectralquant
