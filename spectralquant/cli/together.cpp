#include "spectralquant/cli/together.h"

#include <algorithm>
#include <cstdlib>

#include "spectralquant/cli/console.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/pipeline/device.h"

namespace spectralquant::cli {
namespace {

/// The last resort of a process that waits for one that is gone, in a place where it cannot be
/// told.
[[noreturn]] void end_process(const Error& error) {
  Console().print_error(error);
  std::_Exit(1);
}

}  // namespace

void run_together(CommonOptions& options,
                  const std::function<void(const distribute::Group&)>& job) {
  const distribute::Launch launch =
      distribute::read_launch([](const char* name) { return std::getenv(name); });
  if (launch.size == 1) return job({});
  if (options.n_threads == 0)
    options.n_threads = std::max(1, hardware_threads() / launch.local_size);
  distribute::Group group =
      distribute::Group::join(launch, pipeline::device_of(options.device, launch.local_rank));
  group.when_lost(end_process);
  try {
    job(group);
  } catch (const Error& error) {
    group.fail(error.problem());
    throw;
  } catch (const Interrupted&) {
    group.fail("it was interrupted");
    throw;
  } catch (const std::exception& error) {
    group.fail(error.what());
    throw;
  }
  group.leave();
}

}  // namespace spectralquant::cli
