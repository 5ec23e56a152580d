#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::cli {

/// Calibration text as the command line gives it: files, globs, and "self:N".
struct CalibrationArguments {
  std::vector<std::string> sources;
  std::int64_t window_tokens = 512;
  std::int64_t max_tokens = 0;
  double self_temperature = 1.2;
};
void add_calibration(CLI::App& verb, CalibrationArguments& arguments);

/// Splits "FILE … self:N" into files and own samples. Nothing given: self:131072 if `needed`.
pipeline::CalibrationSource to_source(const CalibrationArguments& arguments, bool needed);

}  // namespace spectralquant::cli
