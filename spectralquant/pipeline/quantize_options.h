#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/distribute/group.h"
#include "spectralquant/quantize/plan.h"
#include "spectralquant/quantize/solver.h"
#include "spectralquant/tune/distill.h"

namespace spectralquant::pipeline {

/// How matrices are rounded.
enum class Method {
  kPlain,     ///< llama.cpp's pure quantization without imatrix, bit for bit; no calibration
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
  bool general = false;  ///< the text that the program brings with it, too
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
  /// tokens above 0: the model is then quantized incrementally too, and the better of the two
  /// files on text held aside is the output; its seed is that below
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

std::string_view name_of(Method method);    ///< "plain", "imatrix", "spectral"
std::string_view name_of(Moments moments);  ///< "sequential", "static"

}  // namespace spectralquant::pipeline
