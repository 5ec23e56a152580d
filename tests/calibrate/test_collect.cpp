#include <torch/autograd.h>

#include "calibrate/calibrate_fixture.h"
#include "spectralquant/calibrate/output_moments.h"
#include "spectralquant/calibrate/signal_checks.h"

namespace spectralquant::calibrate {
namespace {

using ::testing::HasSubstr;
using Taps = std::map<std::string, torch::Tensor>;

/// One graph through all blocks: what went in, what came out behind the last norm, and the products
/// of all matrices on the way.
struct Graph {
  torch::Tensor embedded, hidden;
  Taps outputs;
};
Graph graph_of(model::Model& model, const torch::Tensor& tokens) {
  Graph graph;
  const model::Tap tap = [&](const model::MatrixId& name, const torch::Tensor&,
                             const torch::Tensor& y) { graph.outputs[name.text()] = y; };
  graph.embedded = model.embed(tokens).detach().requires_grad_(true);
  torch::Tensor x = graph.embedded;
  for (std::int64_t block = 0; block < 2; ++block) x = model.block(block, x, &tap);
  graph.hidden = model.final_norm(x);
  return graph;
}

/// Inputs of all matrices in one whole forward pass, in float64, [N, cols].
Taps inputs_of(model::Model& model, const Windows& windows) {
  torch::NoGradGuard no_grad;
  Taps inputs;
  const model::Tap tap = [&](const model::MatrixId& name, const torch::Tensor& x,
                             const torch::Tensor&) {
    inputs[name.text()] = x.reshape({-1, x.size(-1)}).to(torch::kFloat64);
  };
  model.forward(model::to_tensor(windows, 0, windows.size(), torch::kCPU), &tap);
  return inputs;
}

torch::Tensor moment(const torch::Tensor& x) {
  return x.t().mm(x) / static_cast<double>(x.size(0));
}

class CollectTest : public TinyModelTest {};

TEST_F(CollectTest, HIsTheMomentOfEveryInput) {
  open();
  const Windows windows = random_windows(5, 48);
  CollectOptions options;
  options.batch = 2;
  const Signals signals = collect(model(), windows, options);
  EXPECT_EQ(signals.n_tokens, 5 * 48);
  const Taps inputs = inputs_of(model(), windows);
  EXPECT_EQ(signals.matrices.size(), inputs.size());  // the tied head under the embedding's name
  for (const auto& [name, x] : inputs) {
    ASSERT_TRUE(signals.matrices.contains(name)) << name;
    const torch::Tensor h = signals.matrices.at(name).h;
    // also says that a stage's matrices read one input
    EXPECT_LT(relative(h, moment(x)), 1e-5) << name;
    EXPECT_TRUE(torch::equal(h, h.t())) << name;
  }
}

TEST_F(CollectTest, TheSizeOfSignalsIsKnownBefore) {
  for (const bool tied : {true, false}) {
    for (const bool output_moments : {true, false}) {
      model::TinyOptions options;
      options.tied = tied;
      options.draft = true;
      open(options);
      CollectOptions collecting;
      collecting.output_moments = output_moments;
      save_signals(collect(model(), random_windows(1, 16), collecting), path("s.gguf"), true);
      std::uint64_t n_bytes = 0;
      const gguf::File stored = gguf::File::open(path("s.gguf"));
      for (const gguf::Tensor& tensor : stored.tensors()) n_bytes += tensor.size_bytes;
      EXPECT_EQ(size_bytes_of_signals(model().architecture(), *file_, output_moments), n_bytes)
          << tied << output_moments;
    }
  }
}

TEST_F(CollectTest, MatricesOfAStageShareOneTensor) {
  open();
  const Signals signals = collect(model(), random_windows(1, 16));
  EXPECT_EQ(signals.matrices.at("blk.1.attn_q.weight").h.data_ptr(),
            signals.matrices.at("blk.1.attn_v.weight").h.data_ptr());
}

TEST_F(CollectTest, OnlyTheHeadWhenThatIsAllThatIsAsked) {
  open();
  const Windows windows = random_windows(3, 32);
  CollectOptions options;
  options.only_head = true;
  const Signals signals = collect(model(), windows, options);
  ASSERT_EQ(signals.matrices.size(), 1u);
  EXPECT_TRUE(torch::equal(signals.matrices.at("token_embd.weight").h,
                           collect(model(), windows).matrices.at("token_embd.weight").h));
}

TEST_F(CollectTest, AHeadOfItsOwnLeavesTheEmbeddingWithoutH) {
  model::TinyOptions tiny;
  tiny.tied = false;
  open(tiny);
  const Windows windows = random_windows(2, 16);
  EXPECT_FALSE(collect(model(), windows).matrices.contains("token_embd.weight"));
  CollectOptions options;
  options.output_moments = true;
  const Signals signals = collect(model(), windows, options);
  EXPECT_FALSE(signals.matrices.at("token_embd.weight").h.defined());
  EXPECT_TRUE(signals.matrices.at("token_embd.weight").c.defined());
  EXPECT_EQ(signals.matrices.at("output.weight").g.size(0), model::kTinyVocab);
}

TEST_F(CollectTest, OutputMomentsComeWithTheSameH) {
  open();
  const Windows windows = random_windows(4, 32);
  CollectOptions options;
  options.output_moments = true;
  const Signals two = collect(model(), windows, options), one = collect(model(), windows);
  ASSERT_EQ(two.matrices.size(), one.matrices.size());
  for (const auto& [name, signal] : two.matrices) {
    EXPECT_TRUE(torch::equal(signal.h, one.matrices.at(name).h)) << name;
    ASSERT_TRUE(signal.g.defined()) << name;
    // of the head, the diagonal
    ASSERT_EQ(signal.g.dim(), name == "token_embd.weight" ? 1 : 2) << name;
    EXPECT_TRUE(signal.g.dim() == 1 || torch::equal(signal.g, signal.g.t())) << name;
    EXPECT_EQ(signal.g.size(0), static_cast<std::int64_t>(file_->require(name.tensor).n_rows()))
        << name;
  }
  EXPECT_NEAR(two.matrices.at("token_embd.weight").frequency.sum().item<double>(), 1.0, 1e-5);
}

TEST_F(CollectTest, TheSketchIsAFunctionOfItsSeed) {
  open();
  const Windows windows = random_windows(2, 16);
  CollectOptions options;
  options.output_moments = true;
  const auto g = [&](std::uint64_t seed) {
    options.seed = seed;
    return collect(model(), windows, options).matrices.at("blk.0.ffn_up.weight").g;
  };
  EXPECT_TRUE(torch::equal(g(1), g(1)));
  EXPECT_FALSE(torch::equal(g(1), g(2)));
}

// One-token windows, so that the Fisher of a window is that of one output distribution: Σ_k p_k
// (e_k − p)(e_k − p)ᵀ, sent back class by class. The sketch of many windows of the same token has
// to come near it, C and the head's own G included.
TEST_F(CollectTest, TheSketchIsTheSoftmaxFisher) {
  open();
  const std::vector<std::string> names{"blk.1.ffn_down.weight", "blk.1.attn_v.weight",
                                       "blk.0.ffn_up.weight"};
  const torch::Tensor tokens = torch::full({1, 1}, 101, torch::kInt64);
  const Graph graph = graph_of(model(), tokens);
  const torch::Tensor logits = model().head(graph.hidden),
                      p = logits.detach().softmax(-1).flatten();
  std::vector<torch::Tensor> wanted{graph.embedded};
  for (const auto& name : names) wanted.push_back(graph.outputs.at(name));
  std::vector<torch::Tensor> exact(wanted.size());
  for (std::int64_t k = 0; k < model::kTinyVocab; ++k) {
    torch::Tensor z = -p.clone();
    z[k] += 1;
    const auto gradients = torch::autograd::grad(
        {logits}, wanted, {(z * p[k].sqrt()).view_as(logits)}, /*retain_graph=*/true);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const torch::Tensor g = gradients[i].flatten().to(torch::kFloat64), product = g.outer(g);
      exact[i] = exact[i].defined() ? exact[i] + product : product;
    }
  }

  CollectOptions options;
  options.output_moments = true;
  options.batch = 512;
  const Signals signals = collect(model(), Windows(4096, {101}), options);
  EXPECT_LT(relative(signals.matrices.at("token_embd.weight").c, exact[0]), 0.15);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const torch::Tensor g = signals.matrices.at(names[i]).g;
    EXPECT_LT(relative(g, exact[i + 1]), 0.15) << names[i];
    EXPECT_NEAR(g.trace().item<double>() / exact[i + 1].trace().item<double>(), 1.0, 0.03)
        << names[i];
  }
  EXPECT_LT(relative(signals.matrices.at("token_embd.weight").g, p - p.square()), 1e-4);
}

// The plain way: one graph through the whole model.
TEST_F(CollectTest, BlockByBlockIsTheWholeBackwardPass) {
  open();
  const Windows windows = random_windows(3, 24);
  const torch::Tensor tokens = model::to_tensor(windows, 0, 3, torch::kCPU);
  const auto [embedded, hidden, outputs] = graph_of(model(), tokens);
  torch::Tensor diagonal = torch::zeros({model::kTinyVocab}, torch::kFloat64);
  const torch::Tensor gradient = sketch_gradient(model(), hidden, sketch_generator(5, 0), diagonal);
  std::vector<std::string> names{"token_embd.weight"};
  std::vector<torch::Tensor> wanted{embedded};
  for (const auto& [name, y] : outputs) names.push_back(name), wanted.push_back(y);
  const auto gradients = torch::autograd::grad({hidden}, wanted, {gradient});

  CollectOptions options;
  options.output_moments = options.only_head = true;
  options.seed = 5;
  options.batch = 3;
  const Signals signals = collect(model(), windows, options);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const torch::Tensor g = gradients[i].reshape({-1, gradients[i].size(-1)}).to(torch::kFloat64);
    const MatrixSignal& signal = signals.matrices.at(names[i]);
    EXPECT_LT(relative(i == 0 ? signal.c : signal.g, moment(g)), 1e-5) << names[i];
    EXPECT_EQ(signal.h.defined(), i == 0) << names[i];
  }
  EXPECT_LT(relative(signals.matrices.at("token_embd.weight").g, diagonal / 72), 1e-6);
}

// Slices of the head and of the tokens against the softmax of all at once.
TEST_F(CollectTest, TheSketchIsThatOfWholeLogits) {
  open();
  const torch::Tensor hidden = torch::randn({2, 5, 256});
  torch::NoGradGuard no_grad;
  torch::Tensor diagonal = torch::zeros({model::kTinyVocab}, torch::kFloat64);
  const torch::Tensor sketch =
      sketch_gradient(model(), hidden, sketch_generator(5, 0), diagonal,
                      {.distribution_values = 3 * model::kTinyVocab, .head_values = 96 * 256});
  const torch::Tensor p = model().head(hidden).softmax(-1).reshape({10, -1}).to(torch::kFloat64),
                      w = model().weights().get("token_embd.weight").to(torch::kFloat64);
  const torch::Tensor words =
      torch::randint(-(std::int64_t{1} << 31), std::int64_t{1} << 31,
                     {10, (model::kTinyVocab + 31) / 32}, sketch_generator(5, 0), torch::kInt32);
  torch::Tensor signs = torch::empty_like(p);
  for (std::int64_t i = 0; i < 10; ++i) {
    for (std::int64_t v = 0; v < model::kTinyVocab; ++v) {
      const auto word = static_cast<std::uint32_t>(words[i][v / 32].item<std::int32_t>());
      signs[i][v] = (word >> (v % 32)) & 1 ? 1 : -1;
    }
  }
  const torch::Tensor z = p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, true);
  EXPECT_LT(relative(sketch.reshape({10, -1}), z.mm(w)), 1e-5);
  EXPECT_LT(relative(diagonal, (p - p.square()).sum(0)), 1e-5);
}

TEST_F(CollectTest, WhatLiesInFilesIsWhatLiesInMemory) {
  open();
  CollectOptions options;
  options.output_moments = true;
  options.batch = 2;
  const Windows windows = random_windows(5, 16);
  const Signals in_memory = collect(model(), windows, options);
  options.spill = {.folder = path("."), .memory_bytes = 0};
  const Signals in_files = collect(model(), windows, options);
  for (const auto& [name, signal] : in_memory.matrices) {
    EXPECT_TRUE(torch::equal(in_files.matrices.at(name).h, signal.h)) << name;
    EXPECT_TRUE(torch::equal(in_files.matrices.at(name).g, signal.g)) << name;
  }
  // nothing of it has a name
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path(".")), {}), 1);
}

TEST_F(CollectTest, AFolderThatIsNotThereIsNamed) {
  open();
  CollectOptions options;
  options.spill.folder = path("absent");
  EXPECT_THAT(refusal([&] { collect(model(), random_windows(1, 8), options); }),
              HasSubstr("absent"));
}

TEST_F(CollectTest, RefusesNoWindowsAndUnequalOnes) {
  open();
  EXPECT_THAT(refusal([&] { collect(model(), {}); }), HasSubstr("no calibration text"));
  EXPECT_THAT(refusal([&] {
                collect(model(), {{1, 2}, {1, 2, 3}});
              }),
              HasSubstr("windows of 2 and 3 tokens"));
}

}  // namespace
}  // namespace spectralquant::calibrate
