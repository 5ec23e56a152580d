#pragma once
#include <string>

#include "spectralquant/evaluate/evaluation.h"

namespace spectralquant::evaluate {

std::string to_terminal(const Evaluation& evaluation, int width, bool color);
std::string to_markdown(const Evaluation& evaluation);  ///< ready for a model card
std::string to_csv(const Evaluation& evaluation);       ///< one line a model and suite; RFC 4180

}  // namespace spectralquant::evaluate
