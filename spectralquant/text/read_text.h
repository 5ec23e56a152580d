#pragma once
#include <string>
#include <string_view>

namespace spectralquant::text {

/// The UTF-8 text of a file: unpacked if it is gzip, without byte-order mark.
///
/// Errors   Error(kBadInput) with file, line and a command that helps: unreadable, a folder, empty,
///          a damaged gzip file, a format that is no text (named), NUL bytes, not UTF-8.
std::string read_text(const std::string& path);

/// Line of an offset, from 1.
std::size_t line_of(std::string_view text, std::size_t offset);

}  // namespace spectralquant::text
