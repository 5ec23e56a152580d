#pragma once
#include <string>

#include "spectralquant/gguf/file.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// Everything that decides the result, as JSON text; no paths, so that a result does not depend on
/// where it lies.
std::string options_json(const QuantizeOptions& options);

/// What is known of the calibration when the output's header is written.
struct CalibrationFacts {
  std::string description, hash;
  std::int64_t n_tokens = 0;
};

/// Metadata of the output: the input's, byte for byte, but for the file type, the split keys and
/// keys spectralquant.* that say how the file was made. `n_threads`: of the forward passes.
gguf::Metadata output_metadata(const gguf::File& input, const QuantizeOptions& options,
                               const CalibrationFacts& calibration, int n_threads);

}  // namespace spectralquant::pipeline
