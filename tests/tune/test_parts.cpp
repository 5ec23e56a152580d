// The small parts of tuning: Adam, the loss at the head, the order of the text.
#include <torch/cuda.h>
#include <torch/optim/adam.h>

#include <map>

#include "spectralquant/tune/kl.h"
#include "spectralquant/tune/schedule.h"
#include "tune/tune_fixture.h"

namespace spectralquant::tune {
namespace {

using ::testing::HasSubstr;

TEST(AdamStep, WithoutDampingItIsTorchs) {
  torch::manual_seed(1);
  const torch::Tensor start = torch::randn({7, 5});
  torch::Tensor plain = start.clone().requires_grad_(true);
  torch::optim::Adam optimizer({plain}, torch::optim::AdamOptions(0.01).betas({0.9, 0.98}).eps(0));
  Parameter ours(start.clone());
  for (int step = 0; step < 20; ++step) {
    const torch::Tensor gradient = torch::randn({7, 5});
    plain.mutable_grad() = gradient.clone();
    optimizer.step();
    adam_step(ours, gradient, 0.01, step, {0.9, 0.98, 0});
  }
  EXPECT_TRUE(torch::allclose(plain.detach(), ours.value, 1e-5, 1e-6));
}

TEST(AdamStep, UnitsScaleAndDampingHoldsBackWhatHardlyMatters) {
  Parameter p(torch::zeros({2, 2}), torch::tensor({{1.0f}, {0.0f}}));
  adam_step(p, torch::tensor({{1.0f, 1e-6f}, {1.0f, 1.0f}}), 0.5, 0, {0.9, 0.98, 0.1});
  EXPECT_NEAR(p.value[0][0].item<float>(), -0.5, 0.06);
  EXPECT_NEAR(p.value[0][1].item<float>(), 0, 1e-4);
  EXPECT_EQ(p.value[1].abs().max().item<float>(), 0);
  Parameter columns(torch::zeros({3, 2}), torch::tensor({{1.0f, 0.0f}}));
  adam_step(columns, torch::ones({3, 2}), 0.5, 0, {});
  EXPECT_LT(columns.value.select(1, 0).max().item<float>(), -0.4);
  EXPECT_EQ(columns.value.select(1, 1).abs().max().item<float>(), 0);
  Parameter still(torch::ones({3}));
  adam_step(still, torch::zeros({3}), 1, 0, {});
  EXPECT_TRUE(torch::equal(still.value, torch::ones({3})));
}

TEST(Schedule, EveryStepHasAStageAndTheLastFixesAll) {
  for (const Start start : {Start::kOriginal, Start::kSolved}) {
    for (const std::int64_t n : {1, 7, 100, 600, 4352}) {
      const std::vector<Stage> stages = make_stages(start, n);
      std::int64_t steps = 0;
      for (const Stage& stage : stages) {
        EXPECT_GE(stage.n_steps, 0);
        EXPECT_LE(stage.from, stage.to);
        steps += stage.n_steps;
      }
      EXPECT_EQ(steps, n);
      EXPECT_EQ(stages.back().fixed(), 1);
    }
  }
}

TEST(Schedule, FromTheOriginalEverMoreIsFixed) {
  for (const std::int64_t n : {100, 600, 4352}) {
    double fixed = 0;
    for (const Stage& stage : make_stages(Start::kOriginal, n)) {
      EXPECT_EQ(stage.to, 1);
      EXPECT_GT(stage.fixed(), fixed);
      fixed = stage.fixed();
    }
  }
  EXPECT_EQ(make_stages(Start::kOriginal, 4352).size(), 18u);
  EXPECT_EQ(make_stages(Start::kOriginal, 4352)[0].n_steps, 256);
  EXPECT_EQ(make_stages(Start::kOriginal, 4352)[15].n_steps, 128);  // a small share
  EXPECT_EQ(make_stages(Start::kOriginal, 100).size(), 8u);
}

TEST(Schedule, FewTokensStartFromTheSolvedFile) {
  EXPECT_EQ(start_of(2000000, 4700000), Start::kSolved);
  EXPECT_EQ(start_of(8400000, 4700000), Start::kOriginal);
}

TEST(Schedule, RatesRiseStayAndFall) {
  EXPECT_NEAR(rate_at(0, 100, false), 0.2, 1e-12);
  EXPECT_NEAR(rate_at(40, 100, false), 1, 1e-12);
  EXPECT_NEAR(rate_at(75, 100, false), 0.55, 1e-12);
  EXPECT_NEAR(rate_at(50, 100, true), 0.5, 1e-12);
  EXPECT_LT(rate_at(99, 100, true), 0.01);
  EXPECT_EQ(columns_of(1.0 / 64, 256), 4);
  EXPECT_EQ(columns_of(1, 1536), 1536);
  EXPECT_EQ(default_batch_tokens(1000), 2048);
  EXPECT_EQ(default_batch_tokens(std::int64_t{1} << 40), 32768);
  EXPECT_EQ(default_tokens(1000000, false), default_tokens(4000000, false));
  EXPECT_LT(default_tokens(800000000, false), default_tokens(4000000, false));
  EXPECT_GT(default_tokens(4700000, true), 0);
  EXPECT_EQ(default_tokens(36000000, true), 0);  // it wants a GPU
}

TEST(KlAtHead, ASliceAtATimeIsTheWholeAndItsAutograd) {
  torch::manual_seed(3);
  const torch::Tensor teacher_hidden = torch::randn({37, 16}),
                      teacher_head = torch::randn({50, 16});
  const torch::Tensor hidden = (teacher_hidden + 0.1 * torch::randn({37, 16})).requires_grad_(true);
  const torch::Tensor head = (teacher_head + 0.1 * torch::randn({50, 16})).requires_grad_(true);
  const torch::Tensor log_p = teacher_hidden.mm(teacher_head.t()).log_softmax(-1),
                      log_q = hidden.mm(head.t()).log_softmax(-1);
  const torch::Tensor loss = (log_p.exp() * (log_p - log_q)).sum();
  loss.backward();
  for (const std::int64_t slice : {0, 1, 10, 37}) {
    const HeadKl got = kl_at_head(teacher_hidden, teacher_head, hidden, head, true, slice);
    EXPECT_NEAR(got.nats.item<double>(), loss.item<double>(), 1e-4);
    EXPECT_TRUE(torch::allclose(got.hidden_gradient, hidden.grad(), 1e-4, 1e-6));
    EXPECT_TRUE(torch::allclose(got.weight_gradient, head.grad(), 1e-4, 1e-5));
  }
  EXPECT_FALSE(
      kl_at_head(teacher_hidden, teacher_head, hidden, head, false).hidden_gradient.defined());
  EXPECT_EQ(kl_at_head(teacher_hidden, teacher_head, teacher_hidden, teacher_head, true)
                .nats.item<double>(),
            0);
}

TEST(KlAtHead, OnAnAcceleratorItIsThatOfTheCpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  torch::manual_seed(4);
  // in either type
  const auto exact = [](const torch::Tensor& x) {
    return x.to(torch::kBFloat16).to(torch::kFloat32);
  };
  const torch::Tensor teacher_hidden = exact(torch::randn({33, 64})),
                      teacher_head = exact(torch::randn({1003, 64}) * 0.2);
  const torch::Tensor hidden = exact(teacher_hidden + 0.1 * torch::randn({33, 64})),
                      head = exact(teacher_head + 0.02 * torch::randn({1003, 64}));
  const auto relative = [](const torch::Tensor& a, const torch::Tensor& b) {
    return ((a.to(torch::kCPU) - b).norm() / b.norm()).item<double>();
  };
  const HeadKl expected = kl_at_head(teacher_hidden, teacher_head, hidden, head, true);
  for (const auto& [type, tolerance] :
       {std::pair{torch::kFloat32, 1e-4}, std::pair{torch::kBFloat16, 2e-2}}) {
    const auto there = [type = type](const torch::Tensor& x) { return x.to(torch::kCUDA, type); };
    const HeadKl got = kl_at_head(there(teacher_hidden), there(teacher_head), there(hidden),
                                  there(head), true, 10);
    EXPECT_NEAR(got.nats.item<double>() / expected.nats.item<double>(), 1, tolerance);
    EXPECT_LT(relative(got.hidden_gradient, expected.hidden_gradient), tolerance);
    EXPECT_LT(relative(got.weight_gradient, expected.weight_gradient), tolerance);
  }
}

TEST(Curriculum, MixesByShareAndNeverRepeatsFilesTooOften) {
  EXPECT_EQ(mix(100, 50, 0.5, 4).file_windows, 50);
  EXPECT_EQ(mix(100, 10, 0.5, 4).file_windows, 40);
  EXPECT_EQ(mix(100, 10, 0.5, 4).own_windows, 60);
  EXPECT_EQ(mix(100, 0, 0.0, 4).own_windows, 100);
  EXPECT_EQ(mix(100, 500, 0.0, 4).own_windows, 0);
}

TEST(Curriculum, UsesEveryWindowAlikeInAnOrderOfItsOwn) {
  Text text;
  for (int i = 0; i < 5; ++i) text.files.push_back({i});
  for (int i = 0; i < 7; ++i) text.own.push_back({100 + i});
  const auto order = order_windows(text, {15, 21}, 4);
  EXPECT_EQ(order, order_windows(text, {15, 21}, 4));
  EXPECT_NE(order, order_windows(text, {15, 21}, 5));
  std::map<std::int64_t, int> times;
  int files = 0;
  ASSERT_EQ(order.size(), 36u);
  for (std::size_t i = 0; i < order.size(); ++i) {
    ++times[order[i]];
    files += order[i] < 5;
    EXPECT_NEAR(files, static_cast<double>(i + 1) * 15 / 36, 1);  // evenly mixed all along
  }
  EXPECT_EQ(times.size(), 12u);
  for (const auto& [window, n] : times) EXPECT_EQ(n, 3) << window;
}

TEST(Curriculum, RefusesTextThatIsNotThere) {
  EXPECT_THAT(refusal([] { order_windows(Text{}, {1, 0}, 0); }), HasSubstr("no text to tune on"));
  EXPECT_THAT(refusal([] { order_windows(Text{}, {0, 1}, 0); }), HasSubstr("no text to tune on"));
}

}  // namespace
}  // namespace spectralquant::tune
