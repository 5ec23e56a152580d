#include "spectralquant/pipeline/estimate.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "spectralquant/calibrate/streams.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/core/warning.h"
#include "spectralquant/model/experts.h"
#include "spectralquant/model/model.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/memory.h"
#include "spectralquant/pipeline/phase_times.h"
#include "spectralquant/pipeline/prepare.h"
#include "spectralquant/tune/schedule.h"

namespace spectralquant::pipeline {
namespace {

/// What work costs on a kind of device, in float operations at the speed of its matrix product.
/// That of steps bound by something else is counted as so many operations more.
struct Costs {
  double solver;          ///< of the solver, per weight and column of its matrix
  double forward;         ///< times the arithmetic of a forward pass of the walk
  double backward;        ///< times that of a backward pass with its moments
  double sampling;        ///< times that of a token that the model writes
  double matrix_seconds;  ///< a matrix takes at least that long
};

/// Measured on the embedded model, 2 cores: live-scale feedback and two rounds. Tokens are written
/// at the speed of memory.
constexpr Costs kOnCpu{
    .solver = 60, .forward = 1, .backward = 1, .sampling = 4, .matrix_seconds = 0};

/// Measured on an H100, with the 752 M weights of docs/benchmarks.md: 39 s to solve, 19 s to walk,
/// 20 s for gradients, 23 s to write 184,320 tokens. The embedded model takes 1.1 s to solve.
constexpr Costs kOnGpu{
    .solver = 1900, .forward = 1.4, .backward = 6.5, .sampling = 4, .matrix_seconds = 0.025};

/// Forward passes of one walk, products of the output projections for the drift included; drift
/// adds the original's own.
constexpr double kWalkPasses = 1.5;

/// Forward passes that a token of tuning costs: the original's, the student's, and twice that for
/// the gradients.
constexpr double kTuningPasses = 4;

/// Bytes of tuning a weight: the original, the student and its copy in the compute type, the
/// gradient, Adam's two means, and the code.
constexpr double kTuningBytes = 24;

/// Bytes of activations a token, block and residual channel that a backward pass keeps, float32;
/// half of it in bfloat16. Measured on an H100: 61 GiB in all for 752 M weights, bfloat16.
constexpr double kActivationBytes = 52;

/// Bytes of an accelerator that slices of logits and libraries take.
constexpr double kDeviceBytes = 5.0 * (std::uint64_t{1} << 30);

/// Inputs of a stage that are kept for its moments.
constexpr double kMostKeptBytes = 4.0 * (std::uint64_t{1} << 30);

/// Sums over the matrices that become Q4_K; gradient_bytes: of the block that has most.
struct Sizes {
  double weights = 0;
  double used_weights = 0;  ///< by one token: of experts only some
  double solver_work = 0, moment_work = 0, moment_bytes = 0, gradient_bytes = 0, largest = 0,
         largest_cols = 0, hidden = 0, n_matrices = 0;
};

Sizes sizes_of(const quantize::Plan& plan, double expert_share) {
  Sizes out;
  std::map<std::int64_t, double> of_block;  // G
  for (const auto& planned : plan.tensors) {
    if (planned.action != quantize::Action::kSolve) continue;
    const std::int64_t block = model::block_of(planned.source->name);
    for (const gguf::Matrix& source : gguf::matrices_of(*planned.source)) {
      const double used = source.slice == gguf::MatrixId::kWhole ? 1 : expert_share;
      const double rows = static_cast<double>(source.rows()),
                   cols = static_cast<double>(source.cols()), n = rows * cols;
      ++out.n_matrices;
      out.weights += n;
      out.used_weights += used * n;
      out.solver_work += n * cols;
      out.moment_work += used * cols * cols;
      out.moment_bytes += 4 * cols * cols;
      // float64 sum and float32 mean; of the head, the diagonal
      if (block >= 0)
        out.gradient_bytes = std::max(out.gradient_bytes, of_block[block] += 12 * rows * rows);
      out.largest = std::max(out.largest, n);
      out.largest_cols = std::max(out.largest_cols, cols);
    }
  }
  return out;
}

/// Float operations a second of a matrix product of a usual shape, on the threads there are.
double measured_flops(torch::Device device) {
  torch::NoGradGuard no_grad;
  const std::int64_t rows = device.is_cpu() ? 1024 : 8192, n = device.is_cpu() ? 768 : 4096;
  const torch::Tensor a = torch::ones({rows, n}, device), b = torch::ones({n, n}, device);
  a.mm(b).sum().item<float>();  // starts the threads, waits for the device
  const auto start = std::chrono::steady_clock::now();
  constexpr int kRuns = 8;
  torch::Tensor last;
  for (int i = 0; i < kRuns; ++i) last = a.mm(b);
  last.sum().item<float>();
  return kRuns * 2.0 * static_cast<double>(rows * n * n) / std::max(seconds_since(start), 1e-6);
}

/// What a run does, and at which speed.
struct Work {
  const QuantizeOptions& options;
  Sizes sizes;
  Costs costs;
  double flops, tokens, n_blocks;
  bool sequential, drift, two_sided;

  /// Gradients, or moments of the original.
  double collect_seconds() const {
    const double static_tokens =
        sequential ? std::min(tokens, static_cast<double>(tokens_of_static_signals(
                                          static_cast<std::size_t>(sizes.hidden))))
                   : tokens;
    const double passes = two_sided ? 3 * costs.backward : costs.forward,
                 moments = two_sided    ? 2 * costs.backward
                           : sequential ? 0
                                        : costs.forward;
    return static_tokens * 2 * (sizes.used_weights * passes + sizes.moment_work * moments) / flops;
  }
  double walk_seconds() const {
    if (!sequential) return 0;
    return tokens * costs.forward *
           (2 * sizes.used_weights * (kWalkPasses + (drift ? 1 : 0)) +
            sizes.moment_work * (drift ? 2 : 1)) /
           flops;
  }
  double sampling_seconds() const {
    return static_cast<double>(n_samples(options.calibration) * options.calibration.window_tokens) *
           2 * sizes.used_weights * costs.sampling / flops;
  }
  double tuning_seconds() const {
    return static_cast<double>(options.tune.tokens) * 2 * sizes.used_weights * kTuningPasses /
           flops;
  }

  /// Of the calibration, where the streams lie.
  double calibration_bytes() const {
    const double streams = tokens * sizes.hidden * 4 * (drift ? 3 : 1);
    const double kept = sequential ? std::min(kMostKeptBytes, tokens * 4 * sizes.largest_cols) : 0;
    return streams + kept + (sequential ? 0 : sizes.moment_bytes) +
           (two_sided ? sizes.gradient_bytes : 0) + sizes.largest * 8;
  }
  double device_bytes() const {
    // one block's activations, and the inputs of all blocks as far as they stay on the device
    const double kept = tokens * n_blocks * sizes.hidden * 4,
                 gradients =
                     two_sided
                         ? std::min(tokens, static_cast<double>(calibrate::kBatchTokensOnDevice)) *
                                   sizes.hidden * kActivationBytes +
                               std::min(kept, static_cast<double>(calibrate::kStreamBytesOnDevice))
                         : 0;
    const double calibration = 4 * sizes.weights + calibration_bytes() + gradients;
    if (options.tune.tokens == 0) return kDeviceBytes + calibration;
    // A step goes in as many passes as it needs; blocks compute in bfloat16.
    const std::int64_t window = options.calibration.window_tokens;
    const double step = static_cast<double>(tune::step_windows(options.tune, window) * window);
    const double tuning = kTuningBytes * sizes.weights +
                          std::min(static_cast<double>(tune::kMostPassBytes),
                                   step * n_blocks * sizes.hidden * kActivationBytes / 2);
    return kDeviceBytes + std::max(calibration, tuning);
  }
};

/// Seconds and bytes of rounding or solving alone.
void add_solving(const QuantizeOptions& options, const Sizes& sizes, const Costs& costs,
                 double flops, QuantizeEstimate& out) {
  if (options.method != Method::kSpectral) {
    const int n_threads = options.n_threads > 0 ? options.n_threads : hardware_threads();
    // about a microsecond a weight and thread, its objectives included
    out.seconds += sizes.weights * 1e-6 / n_threads;
    out.peak_memory_bytes += static_cast<std::uint64_t>(std::min(sizes.largest, 16e6) * 4 * 4);
    return;
  }
  out.seconds +=
      std::max(costs.solver * sizes.solver_work / flops, costs.matrix_seconds * sizes.n_matrices);
  // Target, working copy, codes and candidates in float32; H, its factor and its inverse in
  // float64.
  out.peak_memory_bytes += static_cast<std::uint64_t>(
      sizes.largest * 4 * 4 + sizes.largest_cols * sizes.largest_cols * 8 * 4);
}

/// Tokens of the job: those of the text, in whole windows, and own samples.
std::int64_t count_tokens(const CalibrationText& text, const CalibrationSource& source) {
  return (static_cast<std::int64_t>(text.windows.size()) + n_samples(source)) *
         source.window_tokens;
}

}  // namespace

std::int64_t tokens_of_best(const std::string& input, const std::string& device) {
  const auto n_weights = static_cast<std::int64_t>(gguf::File::open(input).n_values());
  return tune::default_tokens(n_weights, device.starts_with("cpu"));
}

QuantizeEstimate estimate(const QuantizeOptions& options, const Progress& callers_progress) {
  QuantizeEstimate out;
  const Progress progress = [&](const ProgressEvent& event) {
    if (event.phase == kWarning) out.warnings.emplace_back(event.item);
    report(callers_progress, event);
  };
  const Preparation job(options, progress);
  out.output_bytes = job.plan.output_bytes;
  out.file_bpw = job.plan.file_bpw;
  out.matrix_bpw = job.plan.matrix_bpw;
  for (const auto& planned : job.plan.tensors)
    if (planned.action == quantize::Action::kSolve)
      for (const gguf::Matrix& matrix : gguf::matrices_of(*planned.source))
        out.matrices.push_back(matrix.id().text());

  Sizes sizes =
      sizes_of(job.plan, model::is_supported(job.file) ? model::expert_share(job.file) : 1);
  const torch::Device device = options.method == Method::kPlain
                                   ? torch::Device(torch::kCPU)
                                   : device_of(options.device, options.group.local_rank());
  const Costs costs = device.is_cpu() ? kOnCpu : kOnGpu;
  const double flops = measured_flops(device);
  add_solving(options, sizes, costs, flops, out);
  if (options.method == Method::kPlain || !options.signals_file.empty()) return out;

  out.calibration_tokens = count_tokens(job.calibration.text, options.calibration);
  const model::Architecture& architecture = job.calibration.model->architecture();
  sizes.hidden = static_cast<double>(architecture.hidden_size());
  const bool sequential =
      options.method == Method::kSpectral && options.moments == Moments::kSequential;
  const Work work{
      .options = options,
      .sizes = sizes,
      .costs = costs,
      .flops = flops,
      .tokens = static_cast<double>(out.calibration_tokens),
      .n_blocks = static_cast<double>(architecture.n_blocks()),
      .sequential = sequential,
      .drift = sequential && options.drift_correction > 0,
      .two_sided = options.method == Method::kSpectral && options.two_sided,
  };
  out.seconds += work.collect_seconds() + work.walk_seconds() + work.sampling_seconds() +
                 work.tuning_seconds();
  if (options.tune.tokens > 0)
    out.peak_memory_bytes =
        std::max(out.peak_memory_bytes, static_cast<std::uint64_t>(sizes.weights * kTuningBytes));
  if (device.is_cpu() && options.method == Method::kSpectral) {
    const double need = host_memory(job.plan, job.calibration, options);
    out.peak_memory_bytes = options.tune.tokens > 0
                                ? std::max(out.peak_memory_bytes, static_cast<std::uint64_t>(need))
                                : static_cast<std::uint64_t>(need);
  } else {
    out.peak_memory_bytes += static_cast<std::uint64_t>(work.calibration_bytes());
  }
  if (!device.is_cpu()) out.peak_device_bytes = static_cast<std::uint64_t>(work.device_bytes());
  return out;
}

}  // namespace spectralquant::pipeline
