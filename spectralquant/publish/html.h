#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

/// A report stays a file that can be mailed and posted.
constexpr std::size_t kMaxPageBytes = 3'000'000;

/// One self-contained page: scripts, styles and data in one file that loads nothing. Sections
/// without data are left out.
///
/// The data are made compact: numbers keep six digits, paths only their file name (a report may be
/// posted), and only as many texts to browse are kept as fit into kMaxPageBytes. Texts are
/// printable.
///
/// `spectra` may be null.
/// Errors   those of evaluate::parse_results() and parse_spectra(); Error(kBadInput) if it is too
///          large all the same.
std::string to_html(const Source& results, const Source* spectra);

/// The page with its places to fill, as it was built from tools/report-page.
std::string_view page_template();

}  // namespace spectralquant::publish
