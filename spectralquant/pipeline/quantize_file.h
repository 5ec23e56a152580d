#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/model/sampling.h"
#include "spectralquant/quantize/plan.h"
#include "spectralquant/quantize/solver.h"
#include "spectralquant/tune/distill.h"

namespace spectralquant::pipeline {

/// How matrices are rounded.
enum class Method {
  kPlain,     ///< llama.cpp's pure Q4_K_M without imatrix, bit for bit; no calibration
  kImatrix,   ///< llama.cpp's rounding weighted by diag(H), the head too
  kSpectral,  ///< the solver
};

/// Where the moments of the solver come from.
enum class Moments {
  kSequential,  ///< gathered block by block with the already quantized part in front
  kStatic,      ///< of the original model
};

struct CalibrationSource {
  std::vector<std::string> files;  ///< text or JSONL, globs allowed
  std::int64_t self_tokens = 0;    ///< tokens the model writes itself
  std::int64_t window_tokens = 512;
  std::int64_t max_tokens = 0;  ///< 0: all of the files
  /// Temperature at which the model writes: somewhat above 1 it meets contexts in which it is less
  /// sure, as text of others has them.
  double self_temperature = 1.2;
};

struct QuantizeOptions {
  std::string input, output;
  Method method = Method::kSpectral;  ///< kPlain needs no calibration and ignores it
  Moments moments = Moments::kSequential;
  CalibrationSource calibration;
  /// instead of calibration text: signals or an imatrix; the solver's moments are then static
  std::string signals_file;
  /// Share of the drift in front of a matrix that its target makes good (kSequential only); 0:
  /// none, and half the forward passes.
  double drift_correction = 0.85;
  /// Weigh output directions too (G), and both uses of a tied embedding: needs a backward pass.
  /// Signals without G are solved one-sided.
  bool two_sided = true;
  quantize::SolverOptions solver;
  std::string start_file;  ///< a quantization of the input to tune, instead of solving
  /// tokens above 0: the solved file is then tuned against the original; its seed is that below
  tune::DistillOptions tune;
  quantize::PlanOptions plan;
  bool overwrite = false;
  std::uint64_t seed = 0;
  int n_threads = 0;
  std::string device = "cpu";
  /// Processes that share the work: the same call in each. Only the first looks after the output
  /// and the work folder. The result differs from that of one process by the rounding of sums.
  distribute::Group group = {};
};

/// Objectives are those of quantize::Problem under the moments the matrix was solved with; without
/// moments (plain rounding, or a matrix that no calibration reaches) H is the identity. A stack of
/// matrices counts as one.
struct MatrixReport {
  std::string name;
  std::int64_t rows = 0, cols = 0;
  /// objective / (the same of W against 0): share of the output's energy that is lost
  double relative_error = 0;
  double plain_objective = 0;    ///< of llama.cpp's plain rounding, same moments
  double imatrix_objective = 0;  ///< of imatrix rounding
  double objective = 0;          ///< ours
  double seconds = 0;
};

/// What a run did; `resumed`: matrices that an earlier, unfinished run had solved. Phases: "open",
/// "calibrate" (text, own samples), "collect", "walk" (forward passes between solving), "solve",
/// "sample" (further own samples), "tune", "write", "verify".
struct QuantizeReport {
  std::vector<MatrixReport> matrices;  ///< empty if the solved file of a stopped run was taken up
  std::vector<std::pair<std::string, double>> phase_seconds;
  std::uint64_t output_bytes = 0;
  double file_bpw = 0, matrix_bpw = 0;
  std::int64_t calibration_tokens = 0;
  std::int64_t resumed = 0;
  std::string output_hash;
  std::optional<tune::DistillReport> tuning;
};

/// The main job: GGUF in, strict Q4_K GGUF out. Results are a function of input, options, seed and
/// thread count.
///
/// What takes long is kept in a WorkFolder as it is finished: own samples, solved matrices,
/// checkpoints of tuning. A run that was killed or failed is continued by the next with the same
/// input and options, reported as phase "resume".
///
/// Errors   those of every room below; no output file is left behind by any of them.
QuantizeReport quantize_file(const QuantizeOptions& options, const Progress& progress = {});

/// What quantize_file() would do, without doing it.
struct QuantizeEstimate {
  std::vector<std::string> matrices;  ///< to become Q4_K
  std::uint64_t output_bytes = 0;
  double file_bpw = 0, matrix_bpw = 0;
  std::int64_t calibration_tokens = 0;
  /// beside the mapped input: residual streams, largest block, its moments, the solver's working
  /// set
  std::uint64_t peak_memory_bytes = 0;
  /// from a measured matrix product; good to a factor of two
  double seconds = 0;
};

/// Errors   those of quantize_file() that are found before the long work begins.
QuantizeEstimate estimate(const QuantizeOptions& options);

/// Calibration windows as the options ask for: files, own samples, or both. Also fills a
/// description and a hash.
struct CalibrationText {
  calibrate::Windows windows;  ///< those of files first
  std::size_t n_from_files = 0;
  std::string description, hash;
};
/// Tokens that static signals are gathered from before a walk: H of a tied head and the output
/// moments settle early, more tokens changed no figure (docs/method.md).
inline std::size_t tokens_of_static_signals(std::size_t hidden_size) {
  return std::max<std::size_t>(24576, 32 * hidden_size);
}

/// How a model writes own samples: from its first token, at temperature 1.
model::SamplingOptions sampling_options(const gguf::File& file, const CalibrationSource& source,
                                        std::uint64_t seed);
/// The windows of the files alone; none if there are only own samples.
CalibrationText load_text(const gguf::File& file, const CalibrationSource& source,
                          const Progress& progress = {});
/// Windows that the model is to write itself.
std::int64_t n_samples(const CalibrationSource& source);
calibrate::Windows write_samples(model::Model& model, const CalibrationSource& source,
                                 std::uint64_t seed, const Progress& progress = {},
                                 const distribute::Group& group = {});
void add_samples(CalibrationText& text, calibrate::Windows samples);

/// All of it: load_text() and own samples.
CalibrationText load_calibration(model::Model& model, const CalibrationSource& source,
                                 std::uint64_t seed, const Progress& progress = {},
                                 const distribute::Group& group = {});

/// The device of that name. "cuda" is the accelerator of this process's number on its machine: 0
/// for one process alone.
torch::Device device_of(const std::string& name, int local_rank);

}  // namespace spectralquant::pipeline
