// Every step of a run for the dense architectures.
#include <ATen/Parallel.h>

#include <algorithm>
#include <map>

#include "distribute/processes.h"
#include "model/tiny_dense.h"
#include "pipeline/pipeline_fixture.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/pipeline/estimate.h"

namespace spectralquant::pipeline {
namespace {

class DenseRunTest : public PipelineTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    PipelineTest::SetUp();
    model::TinyDenseOptions dense;
    dense.architecture = GetParam();
    const bool qwen3 = dense.architecture.starts_with("qwen3");
    dense.optional_tensors = !qwen3;
    dense.tied = qwen3;
    dense.fused_qkv = dense.architecture == "qwen2";
    if (dense.architecture == "qwen3moe") {
      dense.n_experts = 4;
      dense.feed_forward = 256;
    }
    model::write_tiny_dense(path("in.gguf"), dense);
  }
  QuantizeReport run(const QuantizeOptions& options) {
    const QuantizeReport report = quantize_file(options);
    EXPECT_TRUE(gguf::take_inventory(gguf::File::open(options.output)).strict);
    EXPECT_THAT(report.without_signal, ::testing::IsEmpty());
    double ours = 0, plain = 0;
    for (const auto& matrix : report.matrices)
      ours += matrix.objective, plain += matrix.plain_objective;
    EXPECT_LT(ours, 0.9 * plain);
    return report;
  }
};

INSTANTIATE_TEST_SUITE_P(Architectures, DenseRunTest,
                         ::testing::Values("llama", "qwen2", "qwen3", "qwen3moe"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(DenseRunTest, IsSolvedInEveryWay) {
  QuantizeOptions o = options();
  run(o);
  o.two_sided = false;
  run(o);
  o.moments = Moments::kStatic;
  run(o);
}

TEST_P(DenseRunTest, IsTuned) {
  QuantizeOptions o = options();
  o.calibration.self_tokens = 256;  // the model writes, too
  o.tune.tokens = 512;
  o.tune.batch_tokens = 128;
  const std::string solved_path = path("solved.gguf");
  const QuantizeReport report = quantize_file(o, [&](const ProgressEvent& event) {
    if (event.phase == "tune" && !std::filesystem::exists(solved_path))
      std::filesystem::copy_file(o.output + ".work/solved.gguf", solved_path);
  });
  ASSERT_TRUE(report.tuning);
  EXPECT_EQ(report.tuning->stages_done, report.tuning->n_stages);
  // So few tokens need not gain: the better of the two files is written.
  const gguf::File out = gguf::File::open(o.output), solved = gguf::File::open(solved_path);
  const bool same = std::ranges::all_of(out.tensors(), [&](const gguf::Tensor& tensor) {
    const gguf::Tensor& other = solved.require(tensor.name);
    return tensor.size_bytes == other.size_bytes &&
           std::equal(tensor.data, tensor.data + tensor.size_bytes, other.data);
  });
  EXPECT_EQ(same, !report.tuning->gained());
  EXPECT_TRUE(gguf::take_inventory(out).strict);
}

TEST_P(DenseRunTest, IsPlanned) {
  const QuantizeEstimate plan = estimate(options());
  const std::map<std::string, std::size_t> expected = {
      {"llama", 16}, {"qwen2", 12}, {"qwen3", 15}, {"qwen3moe", 33}};
  EXPECT_EQ(plan.matrices.size(), expected.at(GetParam()));
  EXPECT_GT(plan.peak_memory_bytes, 0u);
}

TEST_P(DenseRunTest, IsSharedByProcesses) {
  const auto codes = distribute::run_processes(2, [&](distribute::Group& group) {
    at::set_num_threads(1);
    QuantizeOptions o = options();
    o.group = group;
    quantize_file(o);
    group.leave();
    return 0;
  });
  EXPECT_THAT(codes, ::testing::Each(0));
  const std::string shared = path("shared.gguf");
  std::filesystem::rename(path("out.gguf"), shared);
  quantize_file(options());
  const gguf::File a = gguf::File::open(path("out.gguf")), b = gguf::File::open(shared);
  std::size_t n = 0, differing = 0;
  for (const auto& tensor : a.tensors()) {
    const auto& other = b.require(tensor.name);
    std::vector<float> x(tensor.n_values()), y(tensor.n_values());
    gguf::decode(tensor, 0, tensor.n_rows(), x.data());
    gguf::decode(other, 0, other.n_rows(), y.data());
    n += x.size();
    for (std::size_t i = 0; i < x.size(); ++i) differing += x[i] != y[i];
  }
  EXPECT_LT(static_cast<double>(differing), 0.02 * static_cast<double>(n));
}

}  // namespace
}  // namespace spectralquant::pipeline
