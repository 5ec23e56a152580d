#pragma once
#include <string>

#include "spectralquant/core/progress.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/pipeline/calibration.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/quantize/plan.h"

namespace spectralquant::pipeline {

/// A job before its long work: all that it reads is open, and nothing is written.
///
/// Both quantize_file() and estimate() begin with it, so that a dry run refuses what the run would.
///
/// Errors   every refusal of quantize_file(): options, device, input, output, texts, signals, work
///          of another job.
struct Preparation {
  Preparation(const QuantizeOptions& options, const Progress& progress);
  Preparation(const Preparation&) = delete;  // plan and calibration point into the file
  Preparation& operator=(const Preparation&) = delete;

  const gguf::File file;
  const quantize::Plan plan;
  Calibration calibration;
  std::string about;     ///< what decides the result, as JSON
  std::string work_key;  ///< hash of everything that decides the result
};

}  // namespace spectralquant::pipeline
