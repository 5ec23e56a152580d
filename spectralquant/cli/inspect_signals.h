#pragma once
#include "spectralquant/cli/common.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::cli {

/// What `inspect` is asked about signals.
struct InspectSignals {
  std::string signals, reference;
  std::vector<std::string> candidates;
  std::vector<std::string> measure_on;  ///< files, globs, self:N
  pipeline::CalibrationSource measure{.files = {}, .max_tokens = 8192};
  bool eigenvalues = false;
  std::size_t n_rows = 16;
};

/// Adds its options to the verb; the candidates are the verb's files.
void add_inspect_signals(CLI::App& verb, InspectSignals& arguments);

/// Prints spectra, and with a reference how errors lie in them and what they cost.
void inspect_signals(const InspectSignals& arguments, const CommonOptions& common);

}  // namespace spectralquant::cli
