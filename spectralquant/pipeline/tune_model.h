#pragma once
#include <string>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/pipeline/phase_times.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/pipeline/quantize_report.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {

/// What the stages of a run share.
struct Run {
  const QuantizeOptions& options;
  const gguf::File& file;
  QuantizeReport& report;
  PhaseTimes& times;
  const Progress& progress;
};

/// Errors   Error(kBadUsage) if there are fewer than two windows: one to train on, one held aside.
void require_windows_to_tune(std::int64_t n_windows);

/// Splits calibration windows, those of files first, into text to train on and text to hold aside:
/// a sixteenth, spread evenly. At least two windows.
tune::Text split_text(const calibrate::Windows& windows, std::size_t n_from_files);

/// Quantizes incrementally, and writes the better of the result and the solved file. Lets the model
/// write as many further samples as its share of the text needs. work: of the first process, which
/// writes; nullptr in the others.
void tune_and_commit(const Run& run, const std::string& solved_path, WorkFolder* work,
                     tune::Text text, gguf::Metadata metadata);

}  // namespace spectralquant::pipeline
