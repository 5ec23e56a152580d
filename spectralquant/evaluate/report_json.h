#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "spectralquant/evaluate/evaluation.h"

namespace spectralquant::evaluate {

/// Everything that was found out; what the fields are stands in docs/evaluation.md.
std::string to_json(const Evaluation& evaluation);

/// Parses what to_json() wrote and checks what reports rely on: the lists hold objects, names are
/// texts, figures are numbers or null. place: of the text, for messages.
///
/// Errors   Error(kBadInput) with line and column where it is no JSON, with the path inside
///          ("/models/2/name") where a value is of the wrong kind, and for results of a newer
///          format.
nlohmann::json parse_results(const std::string& text, const std::string& place);

/// The evaluation made again from checked results, so that tables of it are evaluate's own drawing.
/// What only the JSON and the page use (curves, examples, details) is left out.
///
/// Errors   Error(kBadInput) when an entry names a model or suite that is not in the results.
Evaluation evaluation_of(const nlohmann::json& results, const std::string& place);

}  // namespace spectralquant::evaluate
