#include "spectralquant/pipeline/memory.h"

#include <algorithm>
#include <cmath>

#include "spectralquant/calibrate/output_moments.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/model/experts.h"
#include "spectralquant/model/model.h"
#include "spectralquant/pipeline/solve_tasks.h"

namespace spectralquant::pipeline {
namespace {

constexpr double kFloat = sizeof(float), kDouble = sizeof(double);

/// Program, libraries, tokenizer; measured on the embedded model.
constexpr double kProgramBytes = 350e6, kTokenBytes = 600;

/// One batch runs in each thread.
constexpr double kBatchTokens = static_cast<double>(calibrate::kBatchTokens);

/// What a block computes for a token beside the products of its matrices, in units of those: held
/// at once by a forward pass, kept by a backward pass. Measured with bench/random_model.py.
constexpr double kForwardShare = 0.7, kBackwardShare = 3;

/// Bytes of a GridMatrix a weight, and of its packed form.
constexpr double kGridBytes = 1.13, kPackedBytes = 0.57;

double square(double x) { return x * x; }

struct Block {
  double weights = 0, outputs = 0, rows2 = 0, cols2 = 0;  ///< sums over its matrices, or stages
  double most_rows = 0, most_cols = 0, most_weights = 0;
};

/// The block that holds most, number by number.
Block largest_block(const gguf::File& file, const model::Architecture& architecture) {
  Block most;
  const double expert_share = model::expert_share(file);
  const auto raise = [](double& a, double b) { a = std::max(a, b); };
  for (std::int64_t i = 0; i < architecture.n_blocks() + architecture.n_draft_blocks(); ++i) {
    Block block;
    for (const model::Stage& stage : model::stages_of(architecture, i)) {
      for (const model::Readers& readers : stage) {
        for (const model::MatrixId& id : readers) {
          const gguf::Matrix matrix = gguf::require_matrix(file, id);
          const double rows = static_cast<double>(matrix.rows()),
                       cols = static_cast<double>(matrix.cols());
          block.weights += rows * cols;
          block.outputs += rows * (stage.size() > 1 ? expert_share : 1);
          block.rows2 += square(rows);
          if (id == readers.front()) block.cols2 += square(cols);
          raise(most.most_rows, rows);
          raise(most.most_cols, cols);
          raise(most.most_weights, rows * cols);
        }
      }
    }
    raise(most.weights, block.weights);
    raise(most.outputs, block.outputs);
    raise(most.rows2, block.rows2);
    raise(most.cols2, block.cols2);
  }
  return most;
}

/// A moment [n, m] while it is gathered by several batches side by side.
double gathering(double values, double workers) {
  return values * (kDouble + (workers + 1) * kFloat);
}

/// The phases of one job, each in bytes.
struct Phases {
  Block block;
  double hidden, vocab, tokens, static_tokens, n_blocks, workers;
  bool sequential, drift, two_sided;
  double in_memory;  ///< of streams, and as much of kept inputs

  double activations(double share) const {
    return workers * kBatchTokens * block.outputs * kFloat * (1 + share);
  }
  double static_streams() const {
    return std::min(in_memory, static_tokens * hidden * kFloat * (two_sided ? n_blocks + 2 : 1)) +
           static_tokens * hidden * kFloat;
  }
  double forward() const {
    return static_streams() + block.weights * kFloat + activations(kForwardShare) +
           (sequential ? 0 : gathering(block.cols2, workers));
  }
  double head() const {
    if (!two_sided) return 0;
    const calibrate::SketchSlices slices;
    const double distributions = static_cast<double>(slices.distribution_values),
                 columns = static_cast<double>(slices.head_values);
    return static_streams() + vocab * hidden * kFloat +
           workers * kFloat *
               (std::min(distributions, kBatchTokens * vocab) +
                3 * std::min(columns / hidden, vocab) *
                    std::min(distributions / vocab, kBatchTokens));
  }
  double backward() const {
    if (!two_sided) return 0;
    return static_streams() + block.weights * kFloat + activations(kBackwardShare) +
           gathering(block.rows2, workers);
  }
  double embedding() const {
    const double all = vocab * hidden, slice = std::min(all, static_cast<double>(kSliceValues));
    return std::max(slice * (kFloat + 4 * kGridBytes) + all * kGridBytes,
                    all * (kGridBytes + std::max(3 * kPackedBytes, kFloat)));
  }
  double streams() const { return tokens * hidden * kFloat * (drift ? 2 : 1); }
  double look_up() const {
    return sequential ? vocab * hidden * kFloat * (drift ? 2 : 1) + std::min(in_memory, streams())
                      : 0;
  }
  double solving() const {
    const double cols2 = square(block.most_cols);
    return cols2 * (2 * kFloat + 3 * kDouble) + cols2 * (3 * kFloat + kDouble) +
           block.most_weights * (4 * kFloat + 2 * kDouble + 4 * kGridBytes) +
           (two_sided ? square(block.most_rows) * kFloat : 0);
  }
  double walk() const {
    if (!sequential) return solving();
    const double kept = std::min(in_memory, tokens * block.most_cols * kFloat);
    return std::min(in_memory, streams()) + kept + block.weights * kFloat * (drift ? 2 : 1) +
           std::max(activations(kForwardShare) +
                        gathering(square(block.most_cols), workers) * (drift ? 2 : 1),
                    solving());
  }
};

}  // namespace

double host_memory(const quantize::Plan& plan, const Calibration& calibration,
                   const QuantizeOptions& options) {
  const model::Architecture& architecture = calibration.model->architecture();
  const CalibrationSource& source = options.calibration;
  const auto hidden = static_cast<std::size_t>(architecture.hidden_size());
  const double own = static_cast<double>(n_samples(source)),
               windows = static_cast<double>(calibration.text.windows.size()) + own,
               tokens = windows * static_cast<double>(source.window_tokens);
  const bool sequential =
      options.method == Method::kSpectral && options.moments == Moments::kSequential;
  const int n_threads = options.n_threads > 0 ? options.n_threads : hardware_threads();
  Phases phases{
      .block = largest_block(calibration.model->weights().file(), architecture),
      .hidden = static_cast<double>(hidden),
      .vocab = static_cast<double>(architecture.vocab_size()),
      .tokens = tokens,
      .static_tokens = sequential
                           ? std::min(tokens, static_cast<double>(tokens_of_static_signals(hidden)))
                           : tokens,
      .n_blocks = static_cast<double>(architecture.n_blocks()),
      .workers = std::clamp(std::ceil(tokens / kBatchTokens), 1.0, static_cast<double>(n_threads)),
      .sequential = sequential,
      .drift = sequential && options.drift_correction > 0,
      .two_sided = options.method == Method::kSpectral && options.two_sided,
      .in_memory = static_cast<double>(calibrate::Spill{}.memory_bytes),
  };
  double all_weights = 0;
  for (const auto& planned : plan.tensors)
    all_weights += static_cast<double>(planned.source->n_values());
  // 512 MiB: keys, values and logits (model/sampling.cpp)
  const double sampling = own > 0 ? all_weights * kFloat + (512 << 20) : 0;
  return kProgramBytes + phases.vocab * kTokenBytes +
         std::max({sampling, phases.forward(), phases.head(), phases.backward(), phases.embedding(),
                   phases.look_up(), phases.walk()});
}

}  // namespace spectralquant::pipeline
