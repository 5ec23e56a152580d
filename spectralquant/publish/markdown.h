#pragma once
#include <string>

#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

/// The tables of `eval --markdown`, from its JSON.
/// Errors   those of evaluate::parse_results() and evaluate::evaluation_of().
std::string to_markdown(const Source& results);

}  // namespace spectralquant::publish
