#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/calibrate/signal_checks.h"
#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// True if the options name calibration text of any kind.
bool has_calibration_text(const CalibrationSource& source);

/// Options that contradict each other or lack something: Error(kBadUsage).
void check_options(const QuantizeOptions& options);

/// The input as llama.cpp needs it: the file loads, and a fallback type must hold the values it is
/// given. Error(kBadInput).
void check_input(const gguf::File& file, const quantize::Plan& plan);

/// A file can be written: gguf::PartialFile would take it, and the disk has room for it and for
/// what is kept beside it. Found before the long work; the Writer checks again.
///
/// Errors   Error(kBadInput), also when the disk is too full.
void check_output(const std::string& output, const std::vector<std::string>& inputs, bool overwrite,
                  std::uint64_t output_bytes = 0);

/// Every file that a job reads: the parts of the model, calibration text, signals, the start of
/// tuning.
std::vector<std::string> input_paths(const gguf::File& model, const QuantizeOptions& options);

/// Looks at every value of the input: each must be finite, and a matrix with a long run of zeros
/// is warned about. Matrices whose weights are large are rounded once, where the method is plain:
/// no scale may hold them.
///
/// Errors   Error(kBadInput) with the place of the first value that is not finite, or too large.
void check_values(const gguf::File& file, const quantize::Plan& plan,
                  const QuantizeOptions& options, const Progress& progress);

/// Warns about matrices that no input reached: errors in them have no measured cost. Columns may
/// become zero where a whole scale has no importance: they are warned about too.
void warn_about_importance(const calibrate::Signals& signals, Method method, gguf::Type type,
                           const Progress& progress);

/// Warns about experts that no token was routed to.
void warn_about_idle_experts(const std::vector<calibrate::IdleExperts>& stacks,
                             const Progress& progress);

/// The last look at a written file before it gets its name: every tensor decodes to finite numbers.
/// Error(kFailed) with the place.
void require_all_finite(const gguf::File& written);

}  // namespace spectralquant::pipeline
