#pragma once
#include <string_view>

namespace spectralquant::pipeline {

/// The calibration text that the program brings with it, as JSON lines: suites/calibration.jsonl,
/// built in. Documents of many kinds and languages in no order, so that a first part of them is
/// mixed too.
std::string_view general_text();

}  // namespace spectralquant::pipeline
