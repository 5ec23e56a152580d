#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/gguf/matrix.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/tune/distill.h"

namespace spectralquant::pipeline {

/// Objectives are those of quantize::Problem under the moments the matrix was solved with; without
/// moments (plain rounding, or a matrix that no calibration reaches) H is the identity.
struct MatrixReport {
  gguf::MatrixId id;
  std::int64_t rows = 0, cols = 0;
  /// objective / (the same of W against 0): share of the output's energy that is lost
  double relative_error = 0;
  double plain_objective = 0;    ///< of llama.cpp's plain rounding, same moments
  double imatrix_objective = 0;  ///< of imatrix rounding
  double objective = 0;          ///< ours
  double seconds = 0;
  /// of an expert: share of the calibration tokens that its moments come from
  std::optional<double> token_share = {};
};

/// What a run did; `resumed`: matrices that an earlier, unfinished run had solved. Phases: "open"
/// (input, text, checks), "calibrate" (own samples), "collect", "walk" (forward passes between
/// solving), "solve", "sample" (further own samples), "tune", "write", "verify".
struct QuantizeReport {
  std::vector<MatrixReport> matrices;  ///< empty if the solved file of a stopped run was taken up
  std::vector<std::pair<std::string, double>> phase_seconds;
  std::uint64_t output_bytes = 0;
  double file_bpw = 0, matrix_bpw = 0;
  std::int64_t calibration_tokens = 0;
  std::int64_t resumed = 0;
  /// matrices of a calibrated run that no signal tells anything of: vision, further draft blocks
  std::vector<std::string> without_signal;
  std::string output_hash;
  bool strict = false;                             ///< every matrix of the output is Q4_K
  std::vector<std::string> violations;             ///< "v.blk.0.attn_q.weight is Q8_0, not Q4_K"
  std::vector<std::string> warnings;               ///< what the user was told on the way
  std::optional<std::uint64_t> peak_device_bytes;  ///< of the accelerator, if the run used one
  std::optional<tune::DistillReport> tuning;
};

/// JSON text of a report: what `quantize --json` prints.
std::string report_json(const QuantizeOptions& options, const QuantizeReport& report);

}  // namespace spectralquant::pipeline
