#pragma once
#include <string>

#include "spectralquant/tune/distill.h"
#include "spectralquant/tune/student.h"

namespace spectralquant::tune {

/// Writes a run atomically, as a GGUF file (general.type = "spectralquant-tuning").
void save_checkpoint(const std::string& path, const std::string& key, const DistillReport& report,
                     Student& student);

/// True if there is a checkpoint of this key; then report and student are as they were when it was
/// saved.
bool load_checkpoint(const std::string& path, const std::string& key, DistillReport& report,
                     Student& student, torch::Device device);

/// The same for a group: where the first process found a checkpoint, all take up the run from it.
bool load_shared_checkpoint(const distribute::Group& group, const std::string& path,
                            const std::string& key, DistillReport& report, Student& student,
                            torch::Device device);

/// The state of the student in the first process, for all of them.
void share_student(const distribute::Group& group, Student& student, torch::Device device);

}  // namespace spectralquant::tune
