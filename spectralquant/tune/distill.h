#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/tune/curriculum.h"
#include "spectralquant/tune/student.h"

namespace spectralquant::tune {

struct DistillOptions {
  std::int64_t tokens = 0;        ///< of text trained on, repetitions counted; 0: no tuning
  std::int64_t batch_tokens = 0;  ///< per step; 0: 4096 on a CPU, 65536 on an accelerator
  double rate = 1;                ///< factor on all four rates
  /// at batches of kRateTokens; smaller batches take smaller ones
  Rates rates{0.0035, 1e-2, 1e-4, 6e-4};
  /// Power of the half cosine along which rates fall. High rates move codes across their borders,
  /// at the cost of noise; what was gained shows as they go to nothing, so that much of a long run
  /// is best spent there (docs/method.md, section 5).
  double fall = 3;
  AdamOptions adam;
  /// farthest a weight may start from its code, in steps: .49 flips at the first noise
  double clip = 0.35;
  double own_share = 0.5;  ///< of the text: the model's own samples; the rest from files
  int max_epochs = 4;      ///< most times a window is used
  bool by_block = false;   ///< distill_blocks() instead of distill(): one block in memory
  /// compute in bfloat16, but for the head; latents are float32 always
  bool bfloat16 = false;
  int measurements = 16;  ///< of the text held aside, over the run
  /// stop after so many measurements in a row without a new best; fewer would end a run while its
  /// rates are high
  int patience = 16;
  double checkpoint_seconds = 300;  ///< between checkpoints
  std::uint64_t seed = 0;           ///< of the order of the text
  /// its processes share the windows of a step and of a measurement; all get the result
  distribute::Group group = {};
};

inline constexpr std::int64_t kRateTokens = 16384;

/// KL(original ‖ tuned) in nats per token.
struct DistillReport {
  /// best_step 0: the start was never beaten
  std::int64_t n_steps = 0, steps_done = 0, best_step = 0;
  std::int64_t n_tokens = 0;  ///< trained on, repetitions counted
  std::int64_t batch_tokens = 0;
  double calibration_start = 0, calibration_end = 0;   ///< on a part of the text trained on
  double held_start = 0, held_end = 0;                 ///< on the text held aside
  std::vector<std::pair<std::int64_t, double>> curve;  ///< step, KL on the text held aside
};

/// Windows of a step: batch_tokens or its default, in whole windows.
std::int64_t step_windows(const DistillOptions& options, std::int64_t window_tokens,
                          torch::Device device);

/// Windows that a run trains on, repetitions counted: whole steps.
std::int64_t run_windows(const DistillOptions& options, std::int64_t window_tokens,
                         torch::Device device);

/// Rates of a step: they rise over the first steps, then fall along a power of half a cosine.
Rates rates_at(const DistillOptions& options, std::int64_t batch_tokens, std::int64_t step,
               std::int64_t n_steps);

/// Error(kBadUsage) if there is none.
void require_held_aside(const Text& text);

/// Trains the quantized model `solved` towards the output distribution of `original`, inside the
/// Q4_K format.
///
/// Loss: KL(original ‖ student) at every position. Every forward pass uses what the decoder will
/// see. The text held aside is measured at the start, at equal intervals and at the end; the state
/// with the lowest KL there is returned, which is the start if nothing beats it.
///
/// checkpoint  file to go on from after a killed or stopped run, "" for none. One that belongs to
///             another run is ignored. It is that of the first process, whatever the others say,
///             and is written every checkpoint_seconds and when progress throws. A resumed run
///             gives the result of one that was not stopped.
/// key         what the result depends on besides text and options, such as the hash of the solved
///             file.
/// Memory      about 24 bytes a weight, the activations of one batch, and the original's weights.
/// Errors      Error(kBadUsage) without text to train on or to hold aside.
TensorBytes distill(const gguf::File& original, const gguf::File& solved, const Text& text,
                    const DistillOptions& options, torch::Device device,
                    const std::string& checkpoint, const std::string& key, DistillReport& report,
                    const Progress& progress = {});

}  // namespace spectralquant::tune
