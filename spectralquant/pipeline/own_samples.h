#pragma once
#include <cstddef>
#include <functional>
#include <string_view>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {

struct OwnSamples {
  calibrate::Windows windows;
  bool kept = false;  ///< an earlier run had left them
};

/// n windows that the model writes: those that an earlier run of the job left in its work folder
/// under `name`, or new ones, which are left there.
///
/// work   of the first process; nullptr in the others, which get what it has.
/// write  lets the model write them, in every process.
OwnSamples own_samples(WorkFolder* work, std::string_view name, std::size_t n,
                       std::size_t window_tokens, const distribute::Group& group,
                       const std::function<calibrate::Windows()>& write);

}  // namespace spectralquant::pipeline
