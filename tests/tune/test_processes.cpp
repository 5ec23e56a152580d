// Tuning shared by several processes gives what one process gives.
#include <ATen/Parallel.h>

#include "distribute/processes.h"
#include "spectralquant/core/hash.h"
#include "tune/tune_fixture.h"

namespace spectralquant::tune {
namespace {

using distribute::Group;
using distribute::run_processes;
using ::testing::Each;

class ProcessesTest : public ShortRunTest {
 protected:
  ProcessesTest() : ShortRunTest(16) {}

  struct Result {
    DistillReport report;
    std::string hash;
  };

  Result run(const Group& group, const std::string& checkpoint = {},
             const Progress& progress = {}) const {
    at::set_num_threads(1);
    DistillOptions options = options_;
    options.group = group;
    Result result;
    Hasher hasher;
    for (const auto& [name, bytes] : distill(*original_, *solved_, text_, options, torch::kCPU,
                                             checkpoint, "key", result.report, progress)) {
      hasher.update(name).update(bytes.data(), bytes.size());
    }
    result.hash = hasher.hex();
    return result;
  }
};

TEST_F(ProcessesTest, TheDivergenceReachedIsTheSame) {
  open();
  // four windows a step: shares of two sizes
  const auto codes = run_processes(3, [&](Group& group) {
    const Result together = run(group);
    bool right = together.hash == group.broadcast(together.hash, 0) &&
                 together.report.held_end < together.report.held_start;
    if (group.leads()) {
      const Result alone = run({});
      right = right && std::abs(together.report.held_start / alone.report.held_start - 1) < 1e-6;
      right = right && std::abs(together.report.held_end / alone.report.held_end - 1) < 0.05;
    }
    group.leave();
    return right ? 0 : 1;
  });
  EXPECT_THAT(codes, Each(0));
}

TEST_F(ProcessesTest, AllTakeUpTheFirstOnesCheckpoint) {
  open();
  const auto codes = run_processes(2, [&](Group& group) {
    const Result whole = run(group);
    const std::string checkpoint = group.leads() ? path("checkpoint.gguf") : "";
    int events = 0;
    try {
      run(group, checkpoint, [&](const ProgressEvent&) {
        if (++events == 10) throw std::runtime_error("stop");
      });
    } catch (const std::runtime_error&) {
    }
    int steps = 0;
    const Result resumed = run(group, checkpoint, [&](const ProgressEvent&) { ++steps; });
    const bool right = resumed.hash == whole.hash && steps < 16 &&
                       resumed.report.held_end == whole.report.held_end;
    group.leave();
    return right ? 0 : 1;
  });
  EXPECT_THAT(codes, Each(0));
}

}  // namespace
}  // namespace spectralquant::tune
