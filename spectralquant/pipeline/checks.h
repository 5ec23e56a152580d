#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/core/progress.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// True if the options name calibration text of any kind.
bool has_calibration_text(const CalibrationSource& source);

/// Options that contradict each other or lack something: Error(kBadUsage).
void check_options(const QuantizeOptions& options);

/// The input as the method needs it: the solver takes no stacks of matrices (experts).
/// Error(kBadInput).
void check_input(const gguf::File& file, const quantize::Plan& plan,
                 const QuantizeOptions& options);

/// A file can be written: it is none of the files that are read, no directory, not there already
/// unless overwrite, its folder is there and the disk has room. Found before the long work; the
/// Writer checks again.
///
/// Errors   Error(kBadInput), also when the disk is too full.
void check_output(const std::string& output, const std::vector<std::string>& inputs, bool overwrite,
                  std::uint64_t output_bytes = 0);

/// Every file that a job reads: the parts of the model, calibration text, signals, the start of
/// tuning.
std::vector<std::string> input_paths(const gguf::File& model, const QuantizeOptions& options);

/// Every tensor decodes to finite numbers. Error(kBadInput) with the place.
void check_finite(const gguf::File& file, int n_threads, const Progress& progress);

}  // namespace spectralquant::pipeline
