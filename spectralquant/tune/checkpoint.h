#pragma once
#include <string>

#include "spectralquant/tune/distill.h"

namespace spectralquant::tune {

/// Where a run stands between two steps.
struct RunState {
  DistillReport report;
  TensorBytes best;  ///< what the result would be
};

/// Writes the run atomically, as a GGUF file (general.type = "spectralquant-tuning"). `solved`
/// tells the shapes of the tensors.
void save_checkpoint(const std::string& path, const std::string& key, const RunState& run,
                     Student& student, const gguf::File& solved);

/// True if there is a checkpoint of this key; then run and student are as they were when it was
/// saved.
bool load_checkpoint(const std::string& path, const std::string& key, RunState& run,
                     Student& student);

/// The same for a group: where the first process found a checkpoint, all take up the run from it.
bool load_shared_checkpoint(const distribute::Group& group, const std::string& path,
                            const std::string& key, RunState& run, Student& student);

}  // namespace spectralquant::tune
