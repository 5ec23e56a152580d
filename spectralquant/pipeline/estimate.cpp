#include "spectralquant/pipeline/estimate.h"

#include <algorithm>
#include <chrono>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/model/model.h"
#include "spectralquant/pipeline/calibration.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/phase_times.h"
#include "spectralquant/text/corpus.h"

namespace spectralquant::pipeline {
namespace {

/// Operations of the solver per weight and column of its matrix, counted in float32 products:
/// live-scale feedback and two rounds. Measured on the embedded model, 2 cores.
constexpr double kSolverOperations = 60;

/// Forward passes of one walk, products of the output projections for the drift included; drift
/// adds the original's own.
constexpr double kWalkPasses = 1.5;

/// Forward passes that a token of tuning costs: the original's, the student's, and twice that for
/// the gradients.
constexpr double kTuningPasses = 4;

/// Bytes of tuning a weight: the original, the student, its latents, their gradient, and Adam's two
/// means, all float32.
constexpr double kTuningBytes = 24;

/// Float operations a second of a matrix product of a usual shape, on the threads there are.
double measured_flops() {
  torch::NoGradGuard no_grad;
  const torch::Tensor a = torch::ones({1024, 768}), b = torch::ones({768, 768});
  a.mm(b);  // starts the threads
  const auto start = std::chrono::steady_clock::now();
  constexpr int kRuns = 8;
  for (int i = 0; i < kRuns; ++i) a.mm(b);
  return kRuns * 2.0 * 1024 * 768 * 768 / std::max(seconds_since(start), 1e-6);
}

double count_tokens(const CalibrationSource& source, const gguf::File& file) {
  double tokens = 0;
  if (!source.files.empty()) {
    const text::Corpus corpus =
        text::load_corpus(source.files, text::ChatFormat::from_metadata(file.metadata()));
    const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
    for (const auto& document : text::encode_documents(corpus, tokenizer))
      tokens += static_cast<double>(document.size());
    if (source.max_tokens > 0) tokens = std::min(tokens, static_cast<double>(source.max_tokens));
  }
  return tokens + static_cast<double>(source.self_tokens);
}

}  // namespace

QuantizeEstimate estimate(const QuantizeOptions& options) {
  check_options(options);
  const gguf::File file = gguf::File::open(options.input);
  const quantize::Plan plan = quantize::make_plan(file, options.plan);
  check_input(file, plan, options);
  if (!options.output.empty())
    check_output(options.output, input_paths(file, options), options.overwrite, plan.output_bytes);

  QuantizeEstimate out;
  out.output_bytes = plan.output_bytes;
  out.file_bpw = plan.file_bpw;
  out.matrix_bpw = plan.matrix_bpw;
  double weights = 0, solver_work = 0, moment_work = 0, moment_bytes = 0, gradient_bytes = 0,
         largest = 0, largest_cols = 0;
  for (const auto& planned : plan.tensors) {
    if (planned.action != quantize::Action::kSolve) continue;
    const gguf::Tensor& source = *planned.source;
    out.matrices.push_back(source.name);
    const double rows = static_cast<double>(source.n_rows()),
                 cols = static_cast<double>(source.n_cols()), n = rows * cols;
    weights += n;
    solver_work += n * cols;
    moment_work += cols * cols;
    moment_bytes += 4 * cols * cols;
    // float64 sum and float32 mean
    if (rows <= static_cast<double>(calibrate::kLargestHeadMoment))
      gradient_bytes += 12 * rows * rows;
    largest = std::max(largest, n);
    largest_cols = std::max(largest_cols, cols);
  }
  const int n_threads = options.n_threads > 0 ? options.n_threads : hardware_threads();
  const double flops = measured_flops();
  if (options.method != Method::kSpectral) {
    // about a microsecond a weight and thread, its objectives included
    out.seconds = weights * 1e-6 / n_threads;
    out.peak_memory_bytes = static_cast<std::uint64_t>(std::min(largest, 16e6) * 4 * 4);
  } else {
    out.seconds = kSolverOperations * solver_work / flops;
    // Target, working copy, codes and candidates in float32; H, its factor and its inverse in
    // float64.
    out.peak_memory_bytes =
        static_cast<std::uint64_t>(largest * 4 * 4 + largest_cols * largest_cols * 8 * 4);
  }
  if (options.method == Method::kPlain || !options.signals_file.empty()) return out;

  const double hidden = static_cast<double>(model::make_architecture(file)->hidden_size()),
               tokens = count_tokens(options.calibration, file);
  out.calibration_tokens = static_cast<std::int64_t>(tokens);
  const bool sequential =
      options.method == Method::kSpectral && options.moments == Moments::kSequential;
  const bool drift = sequential && options.drift_correction > 0,
             two_sided = options.method == Method::kSpectral && options.two_sided;
  const double static_tokens =
      sequential ? std::min(tokens, static_cast<double>(
                                        tokens_of_static_signals(static_cast<std::size_t>(hidden))))
                 : tokens;
  out.seconds += static_tokens *
                 (2 * weights * (two_sided ? 3 : 1) + 2 * moment_work *
                                                          (two_sided    ? 2
                                                           : sequential ? 0
                                                                        : 1)) /
                 flops;
  if (sequential)
    out.seconds += tokens *
                   (2 * weights * (kWalkPasses + (drift ? 1 : 0)) + moment_work * (drift ? 2 : 1)) /
                   flops;
  // One token after the other through the whole model, at the speed of memory rather than of
  // arithmetic.
  out.seconds += static_cast<double>(options.calibration.self_tokens) * 2 * weights / (flops / 4);
  const double streams = tokens * hidden * 4 * (drift ? 3 : 1);
  const double kept = sequential ? std::min(4.0 * static_cast<double>(std::uint64_t{1} << 30),
                                            tokens * 4 * largest_cols)
                                 : 0;
  if (options.tune.tokens > 0) {
    out.seconds += static_cast<double>(options.tune.tokens) * 2 * weights * kTuningPasses / flops;
    out.peak_memory_bytes =
        std::max(out.peak_memory_bytes, static_cast<std::uint64_t>(weights * kTuningBytes));
  }
  out.peak_memory_bytes +=
      static_cast<std::uint64_t>(streams + kept + (sequential ? 0 : moment_bytes) +
                                 (two_sided ? gradient_bytes : 0) + largest * 8);
  return out;
}

}  // namespace spectralquant::pipeline
