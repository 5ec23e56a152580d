#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/tune/curriculum.h"
#include "spectralquant/tune/student.h"

namespace spectralquant::tune {

struct DistillOptions {
  std::int64_t tokens = 0;        ///< of text trained on, repetitions counted; 0: no tuning
  std::int64_t batch_tokens = 0;  ///< per step; 0: by the length of the run
  /// of a weight at a step, in shares of its matrix's root mean square; 0: by the hidden size
  double rate = 0;
  std::optional<Start> start;  ///< else start_of()
  double own_share = 0.5;      ///< of the text: the model's own samples; the rest from files
  /// most times a window is used: of files, which are few, and of own samples
  int max_file_epochs = 16, max_own_epochs = 8;
  std::int64_t moment_tokens = 0;   ///< for H at the start of each stage; 0: by hidden size, device
  double checkpoint_seconds = 300;  ///< between checkpoints; one is also written after each stage
  std::uint64_t seed = 0;           ///< of the order of the text
  /// its processes share the windows of a step and of a measurement; all get the result
  distribute::Group group = {};
};

/// KL on the text held aside, in nats per token, around one stage.
struct StageReport {
  double share = 0;  ///< of the columns that are fixed
  double held_before = 0, held_after = 0;
};

/// KL(original ‖ quantized) in nats per token.
struct DistillReport {
  std::int64_t n_steps = 0, steps_done = 0;
  std::int64_t n_stages = 0, stages_done = 0, stage_steps_done = 0;
  std::int64_t n_tokens = 0;  ///< trained on, repetitions counted
  std::int64_t batch_tokens = 0;
  double held_start = 0;  ///< of the solved file, on the text held aside
  double held_end = 0;    ///< of the tuned one
  std::vector<StageReport> stages;

  /// Whether the tuned file is the better one.
  bool gained() const { return held_end < held_start; }
};

/// Windows of a step: batch_tokens or its default, in whole windows.
std::int64_t step_windows(const DistillOptions& options, std::int64_t window_tokens);

/// Windows that a run trains on, repetitions counted: whole steps.
std::int64_t run_windows(const DistillOptions& options, std::int64_t window_tokens);

/// Error(kBadUsage) if there is none.
void require_held_aside(const Text& text);

/// Quantizes incrementally: stage by stage a further share of the columns of every matrix is fixed
/// to the Q4_K grid, and what is still free is trained towards the output distribution of the
/// original.
///
/// Loss: KL(original ‖ student) at every position. The last stage ends with the file itself.
/// `solved`, a quantization of the original, tells what becomes Q4_K. It is measured too: where
/// tuning does not beat it on the text held aside, nothing is returned, and `solved` is the result.
///
/// checkpoint  file to go on from after a killed or stopped run, "" for none. One that belongs to
///             another run is ignored. It is that of the first process, whatever the others say,
///             and is written after every stage, every checkpoint_seconds and when progress
///             throws. A resumed run gives the result of one that was not stopped.
/// key         what the result depends on besides text and options, such as the hash of the solved
///             file.
/// Memory      about 20 bytes a weight, the activations of one pass, and the original's weights.
/// Errors      Error(kBadUsage) without text to train on or to hold aside.
TensorBytes distill(const gguf::File& original, const gguf::File& solved, const Text& text,
                    const DistillOptions& options, torch::Device device,
                    const std::string& checkpoint, const std::string& key, DistillReport& report,
                    const Progress& progress = {});

}  // namespace spectralquant::tune
