// Moments of experts: of the tokens that are routed to them, beside the mean over all.
#include "calibrate/calibrate_fixture.h"
#include "model/tiny_dense.h"
#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/signal_checks.h"
#include "spectralquant/calibrate/walk.h"

namespace spectralquant::calibrate {
namespace {

using model::MatrixId;

/// Three experts, one of which is chosen: the router's rows are r, −r and 0, so the last is idle.
class ExpertsTest : public FolderTest {
 protected:
  ExpertsTest() {
    model::TinyDenseOptions options;
    options.architecture = "qwen3moe";
    options.hidden = 64;
    options.feed_forward = 48;
    options.n_heads = 2;
    options.n_kv_heads = 1;
    options.head_size = 32;
    options.n_experts = 3;
    options.n_experts_used = 1;
    options.edit = [](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
      for (auto& tensor : tensors) {
        if (!tensor.name.ends_with("ffn_gate_inp.weight")) continue;
        for (std::size_t i = 0; i < 64; ++i) {
          tensor.values[64 + i] = -tensor.values[i];
          tensor.values[128 + i] = 0;
        }
      }
    };
    file_ = std::make_unique<gguf::File>(
        gguf::File::open(model::write_tiny_dense(path("model.gguf"), options)));
    model_ = std::make_unique<model::Model>(*file_);
  }

  static MatrixId expert(const char* part, std::int64_t e) {
    return {std::string("blk.0.") + part + ".weight", e};
  }

  /// Inputs that each matrix gets in one pass through the model, in float64.
  std::map<MatrixId, torch::Tensor> inputs() {
    torch::NoGradGuard no_grad;
    std::map<MatrixId, torch::Tensor> out;
    const model::Tap tap = [&](const MatrixId& id, const torch::Tensor& x, const torch::Tensor&) {
      out[id] = x.reshape({-1, x.size(-1)}).to(torch::kFloat64);
    };
    model_->forward(model::to_tensor(windows_, 0, windows_.size(), torch::kCPU), &tap);
    return out;
  }

  Windows windows_ = random_windows(4, 32);
  std::unique_ptr<gguf::File> file_;
  std::unique_ptr<model::Model> model_;
};

TEST_F(ExpertsTest, MomentsStandBesideTheMeanOverAll) {
  CollectOptions options;
  options.batch = 3;
  options.output_moments = true;
  const Signals signals = collect(*model_, windows_, options);
  auto taps = inputs();
  for (const char* part : {"ffn_gate_exps", "ffn_down_exps"}) {
    const torch::Tensor x0 = taps[expert(part, 0)], x1 = taps[expert(part, 1)];
    ASSERT_FALSE(taps.contains(expert(part, 2)));
    const torch::Tensor all = torch::cat({x0, x1});
    const torch::Tensor mean = all.t().mm(all) / static_cast<double>(all.size(0));
    const double n_shared = kSharedShare * static_cast<double>(all.size(1));
    const auto expected = [&](const torch::Tensor& x) {
      return (x.t().mm(x) + n_shared * mean) / (static_cast<double>(x.size(0)) + n_shared);
    };
    EXPECT_LT(relative(signals.matrices.at(expert(part, 0)).h, expected(x0)), 1e-5) << part;
    EXPECT_LT(relative(signals.matrices.at(expert(part, 1)).h, expected(x1)), 1e-5) << part;
    EXPECT_LT(relative(signals.matrices.at(expert(part, 2)).h, mean), 1e-5) << part;
    EXPECT_EQ(signals.matrices.at(expert(part, 0)).n_tokens, x0.size(0));
    EXPECT_EQ(signals.matrices.at(expert(part, 2)).n_tokens, 0);
    EXPECT_EQ(x0.size(0) + x1.size(0), signals.n_tokens);
  }
  for (const auto& [id, signal] : signals.matrices) {
    EXPECT_TRUE(signal.h.isfinite().all().item<bool>()) << id;
    EXPECT_TRUE(signal.g.isfinite().all().item<bool>()) << id;
    const torch::Tensor diagonal = signal.g.dim() == 2 ? signal.g.diagonal() : signal.g;
    EXPECT_GT(diagonal.sum().item<float>(), 0) << id;
  }
  const auto idle = find_idle_experts(signals);
  ASSERT_EQ(idle.size(), 6u);
  EXPECT_EQ(idle[0].name, "blk.0.ffn_down_exps.weight");
  EXPECT_EQ(idle[0].n_idle, 1);
  EXPECT_EQ(idle[0].n_experts, 3);
}

TEST_F(ExpertsTest, AWalkWithNothingQuantizedHasTheStaticMomentsAndNoDrift) {
  const Signals signals = collect(*model_, windows_);
  std::size_t n_stages = 0, n_idle = 0;
  walk(*model_, windows_, {}, [&](const StageMoments& stage) {
    ++n_stages;
    for (const InputMoments& moments : stage) {
      const MatrixSignal& signal = signals.matrices.at(moments.matrices.front());
      EXPECT_TRUE(torch::equal(moments.h, signal.h)) << moments.matrices.front();
      if (stage.size() > 1) {
        EXPECT_EQ(moments.n_tokens, signal.n_tokens);
        ASSERT_TRUE(moments.input_drift.defined());
        EXPECT_LT(moments.input_drift.abs().max().item<float>(), 1e-6f);
        n_idle += moments.n_tokens == 0;
      }
    }
  });
  EXPECT_EQ(n_stages, 8u);
  EXPECT_EQ(n_idle, 4u);
}

// The quantized front would route otherwise; an expert is fitted to the tokens it gets in the
// original, and its drift is that of the same tokens.
TEST_F(ExpertsTest, TokensGoWhereTheOriginalSendsThem) {
  const auto before = inputs();
  std::map<MatrixId, InputMoments> seen;
  torch::manual_seed(2);
  walk(*model_, windows_, {}, [&](const StageMoments& stage) {
    for (const InputMoments& moments : stage) seen[moments.matrices.front()] = moments;
    const MatrixId& first = stage.front().matrices.front();
    if (first != "blk.0.attn_output.weight") return;
    const torch::Tensor w = model_->weights().get(first);
    model_->weights().set(first, w + 0.5 * w.abs().mean() * torch::randn_like(w));
  });
  const auto after = inputs();
  const MatrixId gate = expert("ffn_gate_exps", 0);
  EXPECT_NE(after.at(gate).size(0), before.at(gate).size(0)) << "it does not route otherwise";
  EXPECT_EQ(seen.at(gate).n_tokens, before.at(gate).size(0));
  EXPECT_GT(seen.at(gate).input_drift.abs().max().item<float>(), 1e-3f);
  for (const auto& [id, moments] : seen) {
    EXPECT_TRUE(moments.h.isfinite().all().item<bool>()) << id;
    EXPECT_TRUE((moments.input_drift.defined() ? moments.input_drift : moments.output_drift)
                    .isfinite()
                    .all()
                    .item<bool>())
        << id;
  }
}

TEST_F(ExpertsTest, AnImatrixIsThatOfStock) {
  const Signals signals = collect(*model_, windows_);
  save_imatrix(signals, path("im.gguf"), 32, false);
  const gguf::File file = gguf::File::open(path("im.gguf"));
  const gguf::Tensor& sums = file.require("blk.1.ffn_up_exps.weight.in_sum2");
  EXPECT_EQ(sums.shape_text(), "[64, 3]");
  EXPECT_EQ(file.require("blk.1.ffn_up_exps.weight.counts").shape_text(), "[1, 3]");
}

}  // namespace
}  // namespace spectralquant::calibrate
