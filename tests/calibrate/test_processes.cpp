// Calibration and sampling shared by several processes give what one process gives.
#include <ATen/Parallel.h>

#include "calibrate/calibrate_fixture.h"
#include "distribute/processes.h"
#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/walk.h"
#include "spectralquant/model/sampling.h"

namespace spectralquant::calibrate {
namespace {

using distribute::Group;
using distribute::run_processes;
using ::testing::Each;

/// Moments of another order of summation: float32 products, summed in float64.
constexpr double kRounding = 1e-6;

class ProcessesTest : public FolderTest {
 protected:
  /// Every process makes the model and compares its own result for all windows with that of the
  /// group.
  std::vector<int> run(int size, const std::function<bool(model::Model&, Group&)>& body) {
    model::TinyOptions options;
    options.tied = false;
    const std::string file = model::write_tiny_qwen35(path("tiny.gguf"), options);
    return run_processes(size, [&](Group& group) {
      at::set_num_threads(1);
      const gguf::File opened = gguf::File::open(file);
      model::Model model(opened);
      const bool right = body(model, group);
      group.leave();
      return right ? 0 : 1;
    });
  }
};

bool near(const torch::Tensor& a, const torch::Tensor& b, const char* what) {
  if (!a.defined() && !b.defined()) return true;
  // ≤, not <: in front of the first stage nothing is quantized, its drift is zero.
  const bool right = a.defined() && b.defined() &&
                     (a - b).norm().item<double>() <= kRounding * b.norm().item<double>();
  if (!right) std::fprintf(stderr, "%s differs\n", what);
  return right;
}

TEST_F(ProcessesTest, AMomentOfAllAndOfThoseWhoHaveSomething) {
  const auto codes = run(3, [](model::Model&, Group& group) {
    const torch::Tensor rows = torch::arange(12, torch::kFloat32).reshape({4, 3});
    Moment moment, alone, nothing;
    alone.add(rows);
    if (group.rank() == 1) moment.add(rows.slice(0, 0, 1));
    if (group.rank() == 2) moment.add(rows.slice(0, 1, 4));
    moment.sum_over(group, torch::kCPU);
    nothing.sum_over(group, torch::kCPU);
    return moment.count() == 4 && near(moment.mean(), alone.mean(), "moment") &&
           !nothing.mean().defined();
  });
  EXPECT_THAT(codes, Each(0));
}

TEST_F(ProcessesTest, SignalsDoNotDependOnTheNumberOfProcesses) {
  for (const int size : {2, 4}) {  // five batches: shares of two sizes
    const auto codes = run(size, [](model::Model& model, Group& group) {
      const Windows windows = random_windows(9, 24);
      bool right = true;
      for (const bool output_moments : {false, true}) {
        CollectOptions options;
        options.output_moments = output_moments;
        options.batch = 2;
        options.seed = 3;
        const Signals alone = collect(model, windows, options);
        options.group = group;
        const Signals together = collect(model, windows, options);
        right = right && together.n_tokens == alone.n_tokens &&
                together.matrices.size() == alone.matrices.size();
        for (const auto& [name, signal] : alone.matrices) {
          const MatrixSignal& other = together.matrices.at(name);
          right = near(other.h, signal.h, "H") && near(other.g, signal.g, "G") &&
                  near(other.c, signal.c, "C") &&
                  near(other.frequency, signal.frequency, "frequency") && right;
        }
      }
      return right;
    });
    EXPECT_THAT(codes, Each(0)) << size << " processes";
  }
}

TEST_F(ProcessesTest, MoreProcessesThanBatches) {
  const auto codes = run(4, [](model::Model& model, Group& group) {
    const Windows windows = random_windows(2, 16);
    CollectOptions options;
    options.batch = 1;
    const Signals alone = collect(model, windows, options);
    options.group = group;
    const Signals together = collect(model, windows, options);
    bool right = true;
    for (const auto& [name, signal] : alone.matrices)
      right = near(together.matrices.at(name).h, signal.h, "H") && right;
    return right;
  });
  EXPECT_THAT(codes, Each(0));
}

TEST_F(ProcessesTest, TheWalkDoesNotDependOnTheNumberOfProcesses) {
  const auto codes = run(2, [](model::Model& model, Group& group) {
    const Windows windows = random_windows(5, 24);
    const auto walk_with = [&](const Group& with) {
      std::vector<InputMoments> stages;
      WalkOptions options;
      options.batch = 2;
      options.group = with;
      walk(model, windows, options, [&](const StageMoments& moments) {
        stages.push_back(moments.front());
        for (const model::MatrixId& name : moments.front().matrices)
          model.weights().set(name, (model.weights().get(name) * 16).round() / 16);
      });
      for (const auto& stage : stages) {
        for (const model::MatrixId& name : stage.matrices) model.weights().reset(name);
      }
      return stages;
    };
    const auto alone = walk_with({}), together = walk_with(group);
    bool right = alone.size() == together.size();
    for (std::size_t i = 0; right && i < alone.size(); ++i) {
      right = near(together[i].h, alone[i].h, "H") &&
              near(together[i].input_drift, alone[i].input_drift, "input drift") &&
              near(together[i].output_drift, alone[i].output_drift, "output drift") &&
              together[i].n_tokens == alone[i].n_tokens;
    }
    return right;
  });
  EXPECT_THAT(codes, Each(0));
}

TEST_F(ProcessesTest, OwnSamplesAreTheSameTokens) {
  const auto codes = run(3, [](model::Model& model, Group& group) {
    model::SamplingOptions options;
    options.window_tokens = 12;
    options.seed = 9;
    options.batch = 2;
    const auto alone = model::sample(model, 7, options);
    options.group = group;
    return model::sample(model, 7, options) == alone;
  });
  EXPECT_THAT(codes, Each(0));
}

}  // namespace
}  // namespace spectralquant::calibrate
