#include "calibrate/calibrate_fixture.h"
#include "spectralquant/calibrate/walk.h"

namespace spectralquant::calibrate {
namespace {

using ::testing::ElementsAre;

struct Seen {
  std::map<std::string, InputMoments> stages;  ///< by their first matrix
  std::vector<std::string> order;
};

class WalkTest : public TinyModelTest {
 protected:
  Seen walk_with(
      const WalkOptions& options,
      const std::function<void(const InputMoments&)>& solve = [](const InputMoments&) {}) {
    Seen seen;
    walk(model(), windows_, options, [&](const StageMoments& stage) {
      for (const InputMoments& moments : stage) {
        seen.order.push_back(moments.matrices.front().text());
        seen.stages[moments.matrices.front().text()] = moments;
        solve(moments);
      }
    });
    return seen;
  }

  /// Input or output of a matrix in one whole forward pass, [N, ..] in float64.
  torch::Tensor tapped(const std::string& wanted, bool output) {
    torch::NoGradGuard no_grad;
    torch::Tensor out;
    const model::Tap tap = [&](const model::MatrixId& name, const torch::Tensor& x,
                               const torch::Tensor& y) {
      if (name == wanted)
        out = (output ? y : x).reshape({-1, (output ? y : x).size(-1)}).to(torch::kFloat64);
    };
    model().forward(tokens(), &tap);
    return out;
  }
  /// Residual stream at the input of a block.
  torch::Tensor residual(std::int64_t block) {
    torch::NoGradGuard no_grad;
    torch::Tensor x = model().embed(tokens());
    for (std::int64_t i = 0; i < block; ++i) x = model().block(i, x);
    return x.reshape({-1, x.size(-1)}).to(torch::kFloat64);
  }
  torch::Tensor tokens() { return model::to_tensor(windows_, 0, windows_.size(), torch::kCPU); }

  Windows windows_ = random_windows(5, 32);
};

TEST_F(WalkTest, VisitsEveryStageInOrder) {
  open();
  const Seen seen = walk_with({});
  EXPECT_THAT(seen.order, ElementsAre("blk.0.attn_qkv.weight", "blk.0.ssm_out.weight",
                                      "blk.0.ffn_gate.weight", "blk.0.ffn_down.weight",
                                      "blk.1.attn_q.weight", "blk.1.attn_output.weight",
                                      "blk.1.ffn_gate.weight", "blk.1.ffn_down.weight"));
  EXPECT_EQ(seen.stages.at("blk.1.ffn_gate.weight").block, 1);
}

TEST_F(WalkTest, WithNothingQuantizedIsCollectWithoutDrift) {
  open();
  const Signals signals = collect(model(), windows_);
  const Seen seen = walk_with({});
  for (const auto& [name, moments] : seen.stages) {
    EXPECT_TRUE(torch::equal(moments.h, signals.matrices.at(name).h)) << name;
    EXPECT_EQ(moments.n_tokens, 160);
    const bool is_output = name.ends_with("ssm_out.weight") ||
                           name.ends_with("attn_output.weight") ||
                           name.ends_with("ffn_down.weight");
    ASSERT_EQ(moments.output_drift.defined(), is_output) << name;
    ASSERT_EQ(moments.input_drift.defined(), !is_output) << name;
    EXPECT_LT((is_output ? moments.output_drift : moments.input_drift).abs().max().item<float>(),
              1e-6f)
        << name;
  }
}

TEST_F(WalkTest, WithoutDriftThereIsNone) {
  open();
  WalkOptions options;
  options.drift = false;
  for (const auto& [name, moments] : walk_with(options).stages) {
    EXPECT_TRUE(moments.h.defined()) << name;
    EXPECT_FALSE(moments.input_drift.defined() || moments.output_drift.defined()) << name;
  }
}

// Everything in front of the last block's down projection is disturbed; its moments are compared
// with those of two whole passes.
TEST_F(WalkTest, MomentsAreThoseOfTheDisturbedModelAgainstTheOriginal) {
  open();
  const std::string last = "blk.1.ffn_down.weight", output = "blk.1.attn_output.weight";
  const torch::Tensor x_f = tapped(last, false), r_f = residual(1) + tapped(output, true),
                      a_f = tapped(output, false), block_f = residual(1);
  torch::manual_seed(4);
  std::map<std::string, torch::Tensor> disturbed;
  model().weights().set("token_embd.weight", model().weights().get("token_embd.weight") * 1.05);
  const auto disturb = [&](const InputMoments& moments) {
    for (const auto& id : moments.matrices) {
      const std::string name = id.text();
      if (name == last || name == "token_embd.weight") continue;
      const torch::Tensor w = model().weights().get(name);
      model().weights().set(
          name, disturbed.try_emplace(name, w + 0.1 * w.abs().mean() * torch::randn_like(w))
                    .first->second);
    }
  };
  WalkOptions options;
  options.batch = 2;
  const Seen seen = walk_with(options, disturb);
  const torch::Tensor x_q = tapped(last, false), r_q = residual(1) + tapped(output, true),
                      a_q = tapped(output, false), block_q = residual(1);
  const double n = 160;
  const InputMoments& down = seen.stages.at(last);
  EXPECT_LT(relative(down.h, x_q.t().mm(x_q) / n), 1e-5);
  const auto original = [&](const std::string& name) {
    return model().weights().get(name).to(torch::kFloat64);
  };
  EXPECT_LT(
      relative(down.output_drift, (r_f - r_q + (x_f - x_q).mm(original(last).t())).t().mm(x_q) / n),
      1e-4);
  const InputMoments& out = seen.stages.at(output);

  for (const auto& [name, w] : disturbed) model().weights().reset(name);
  EXPECT_LT(relative(out.output_drift,
                     (block_f - block_q + (a_f - a_q).mm(original(output).t())).t().mm(a_q) / n),
            1e-4);
}

TEST_F(WalkTest, WhatLiesInFilesIsWhatLiesInMemory) {
  open();
  const auto disturb = [&](const InputMoments& moments) {
    for (const auto& name : moments.matrices)
      model().weights().set(name, (model().weights().get(name) * 16).round() / 16);
  };
  WalkOptions options;
  options.batch = 2;
  const Seen in_memory = walk_with(options, disturb);
  for (const auto& [name, moments] : in_memory.stages)
    for (const auto& matrix : moments.matrices) model().weights().reset(matrix);
  options.spill = {.folder = path("."), .memory_bytes = 0};
  const Seen in_files = walk_with(options, disturb);
  for (const auto& [name, moments] : in_memory.stages) {
    const InputMoments& other = in_files.stages.at(name);
    EXPECT_TRUE(torch::equal(other.h, moments.h)) << name;
    EXPECT_TRUE(moments.output_drift.defined()
                    ? torch::equal(other.output_drift, moments.output_drift)
                    : torch::equal(other.input_drift, moments.input_drift))
        << name;
  }
}

TEST_F(WalkTest, RefusesNoWindows) {
  open();
  windows_.clear();
  EXPECT_NE(refusal([&] { walk_with({}); }), "");
}

}  // namespace
}  // namespace spectralquant::calibrate
