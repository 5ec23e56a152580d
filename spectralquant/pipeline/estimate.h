#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/core/progress.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// What quantize_file() would do, without doing it.
struct QuantizeEstimate {
  std::vector<std::string> matrices;  ///< to be quantized
  std::uint64_t output_bytes = 0;
  double file_bpw = 0, matrix_bpw = 0;
  std::int64_t calibration_tokens = 0;
  /// beside the mapped input: residual streams, largest block, its moments, the solver's working
  /// set
  std::uint64_t peak_memory_bytes = 0;
  std::uint64_t peak_device_bytes = 0;  ///< of the accelerator; 0 on a CPU
  /// from a matrix product measured on the device; good to a factor of two
  double seconds = 0;
  std::vector<std::string> warnings;  ///< what the user was told on the way
};

/// The output may have no name yet.
/// Errors   those of quantize_file() that are found before the long work begins.
QuantizeEstimate estimate(const QuantizeOptions& options, const Progress& progress = {});

/// Tokens that --effort best tunes on; 0 where tuning does not pay.
/// Errors   Error(kBadInput) if the input is no GGUF file.
std::int64_t tokens_of_best(const std::string& input, const std::string& device);

}  // namespace spectralquant::pipeline
