#pragma once
#include <nlohmann/json.hpp>

#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

/// Parses the JSON of `eval --json` and checks what reports rely on: the lists hold objects, names
/// are texts, figures are numbers or null.
///
/// Errors   Error(kBadInput) with line and column where it is no JSON, with the path inside
///          ("/models/2/name") where a value is of the wrong kind, and for results of a newer
///          format.
nlohmann::json parse_results(const Source& source);

/// The same for the JSON of `inspect --signals --json`.
nlohmann::json parse_spectra(const Source& source);

}  // namespace spectralquant::publish
