#pragma once
#include <nlohmann/json.hpp>

#include "spectralquant/evaluate/evaluation.h"

namespace spectralquant::publish {

/// The evaluation that eval printed, made again from checked results, so that tables of it are
/// evaluate's own drawing. What only the JSON and the page use (curves, examples, details) is left
/// out.
///
/// Errors   Error(kBadInput) when an entry names a model or suite that is not in the results.
evaluate::Evaluation evaluation_of(const nlohmann::json& results, const std::string& place);

}  // namespace spectralquant::publish
