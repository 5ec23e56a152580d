#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/calibrate/spill.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/model/model.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {

/// Calibration of a job: text with the model it is for, or signals; neither for plain rounding.
struct Calibration {
  std::unique_ptr<model::Model> model;
  CalibrationText text;
  std::optional<calibrate::Signals> signals;
  CalibrationFacts facts;
};

/// Text files or signals: everything of the calibration that is there before the model runs.
Calibration read_calibration(const gguf::File& file, const quantize::Plan& plan,
                             const QuantizeOptions& options, const Progress& progress);

/// Adds own samples, the longest part of a calibration: those in the work folder if an earlier run
/// left them. work: of the first process; nullptr in the others.
void complete_calibration(Calibration& calibration, WorkFolder* work,
                          const QuantizeOptions& options, const Progress& progress);

/// Matrices that are solved without a signal: calibration text never reaches them, or the file of
/// signals does not hold them.
std::vector<std::string> find_without_signal(const Calibration& calibration, const gguf::File& file,
                                             const quantize::Plan& plan);

/// Tokens that static signals are gathered from before a walk: H of a tied head and the output
/// moments settle early, more tokens changed no figure (docs/method.md).
std::size_t tokens_of_static_signals(std::size_t hidden_size);

/// Static signals as far as the method needs them; what is finished lies in the spill's folder.
calibrate::Signals collect_signals(const Calibration& calibration, const QuantizeOptions& options,
                                   const calibrate::Spill& spill, const Progress& progress);

}  // namespace spectralquant::pipeline
