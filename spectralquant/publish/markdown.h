#pragma once
#include <string>

#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

/// The tables of `eval --markdown`, from its JSON.
/// Errors   those of parse_results(); Error(kBadInput) when an entry names a model or suite that is
///          not in the results.
std::string to_markdown(const Source& results);

}  // namespace spectralquant::publish
