#pragma once
#include <functional>

#include "spectralquant/cli/common.h"
#include "spectralquant/distribute/group.h"

namespace spectralquant::cli {

/// Runs a job in the processes that a launcher started together (torchrun, srun, mpirun); alone
/// without one. In all but the first the job should be silent. Threads are shared out among the
/// processes of a machine unless a number was asked for.
///
/// Errors   Error(kFailed) when a process is lost; those of the job, which end the other processes
///          too.
void run_together(CommonOptions& options, const std::function<void(const distribute::Group&)>& job);

}  // namespace spectralquant::cli
