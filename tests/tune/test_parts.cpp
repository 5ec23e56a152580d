// The small parts of tuning: Adam, the loss at the head, the order of the text.
#include <map>

#include "spectralquant/tune/kl.h"
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
    ours.gradient = gradient.clone();
    adam_step(ours, 0.01, step, {0.9, 0.98, 0});
    EXPECT_FALSE(ours.gradient.defined());
  }
  EXPECT_TRUE(torch::allclose(plain.detach(), ours.value, 1e-5, 1e-6));
}

TEST(AdamStep, UnitsScaleAndDampingHoldsBackWhatHardlyMatters) {
  Parameter p(torch::zeros({2, 2}), torch::tensor({{1.0f}, {0.0f}}));
  p.gradient = torch::tensor({{1.0f, 1e-6f}, {1.0f, 1.0f}});
  adam_step(p, 0.5, 0, {0.9, 0.98, 0.1});
  EXPECT_NEAR(p.value[0][0].item<float>(), -0.5, 0.06);
  EXPECT_NEAR(p.value[0][1].item<float>(), 0, 1e-4);
  EXPECT_EQ(p.value[1].abs().max().item<float>(), 0);
  adam_step(p, 0.5, 1, {});  // no gradient: nothing moves
  EXPECT_NEAR(p.value[0][0].item<float>(), -0.5, 0.06);
  Parameter still(torch::ones({3}));
  still.gradient = torch::zeros({3});
  adam_step(still, 1, 0, {});
  EXPECT_TRUE(torch::equal(still.value, torch::ones({3})));
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
    EXPECT_NEAR(got.sum_nats, loss.item<double>(), 1e-4);
    EXPECT_TRUE(torch::allclose(got.hidden_gradient, hidden.grad(), 1e-4, 1e-6));
    EXPECT_TRUE(torch::allclose(got.weight_gradient, head.grad(), 1e-4, 1e-5));
  }
  EXPECT_FALSE(
      kl_at_head(teacher_hidden, teacher_head, hidden, head, false).hidden_gradient.defined());
  EXPECT_EQ(kl_at_head(teacher_hidden, teacher_head, teacher_hidden, teacher_head, true).sum_nats,
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
    EXPECT_NEAR(got.sum_nats / expected.sum_nats, 1, tolerance);
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
  const Curriculum curriculum(text, {15, 21}, 4), again(text, {15, 21}, 4),
      other(text, {15, 21}, 5);
  std::map<int, int> times;
  bool differs = false;
  int files = 0;
  for (int step = 0; step < 9; ++step) {
    for (int i = 0; i < 4; ++i) {
      const int token = curriculum.window(step, i, 4)[0];
      ++times[token];
      files += token < 100;
      EXPECT_NEAR(files, (4 * step + i + 1) * 15 / 36.0, 1);  // evenly mixed all along
      EXPECT_EQ(token, again.window(step, i, 4)[0]);
      differs |= token != other.window(step, i, 4)[0];
    }
  }
  EXPECT_TRUE(differs);
  EXPECT_EQ(times.size(), 12u);
  for (const auto& [token, n] : times) EXPECT_EQ(n, 3) << token;
}

TEST(Curriculum, RefusesTextThatIsNotThere) {
  EXPECT_THAT(refusal([] { Curriculum(Text{}, {1, 0}, 0); }), HasSubstr("no text to tune on"));
  EXPECT_THAT(refusal([] { Curriculum(Text{}, {0, 1}, 0); }), HasSubstr("no text to tune on"));
}

}  // namespace
}  // namespace spectralquant::tune
