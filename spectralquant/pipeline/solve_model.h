#pragma once
#include <functional>
#include <set>
#include <string>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/calibrate/signals.h"
#include "spectralquant/pipeline/matrix_writer.h"
#include "spectralquant/pipeline/phase_times.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/pipeline/quantize_report.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {

/// What the ways of rounding a whole model share.
struct Job {
  const QuantizeOptions& options;
  const gguf::File& file;
  MatrixWriter& output;
  /// solved matrices are kept there, and taken from there; nullptr but in the first process
  WorkFolder* work;
  calibrate::Spill spill;
  const std::set<gguf::MatrixId>& solved;  ///< what an earlier run of this job left there
  QuantizeReport& report;
  PhaseTimes& times;
  const Progress& progress;
};

/// llama.cpp's rounding of every matrix, weighted by diag(H) where `signals` has it; null: plain.
void round_model(Job& job, const calibrate::Signals* signals);

/// Every matrix solved under static signals. A matrix without a signal is solved for the least
/// squared error.
void solve_static(Job& job, const calibrate::Signals& signals);

/// The embedding, then matrix by matrix along the walk, targets corrected for the drift in front.
/// `signals`: of the head at least when it is tied; with output moments when two-sided.
void solve_sequential(Job& job, model::Model& model, const calibrate::Windows& windows,
                      calibrate::Signals signals);

}  // namespace spectralquant::pipeline
