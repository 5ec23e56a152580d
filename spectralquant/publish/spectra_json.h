#pragma once
#include <nlohmann/json.hpp>

#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

/// Parses the JSON of `inspect --signals --json` and checks what the report relies on.
///
/// Errors   Error(kBadInput) with line and column where it is no JSON, with the path inside
///          ("/matrices/2/name") where a value is of the wrong kind.
nlohmann::json parse_spectra(const Source& source);

}  // namespace spectralquant::publish
