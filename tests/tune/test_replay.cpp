#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>

#include <stdexcept>

#include "spectralquant/tune/replay.h"

namespace spectralquant::tune {
namespace {

using torch::Tensor;

TEST(Replay, OnACpuCallsTheFunctionEveryTime) {
  int calls = 0;
  Replay twice([&](const Tensor& x) {
    ++calls;
    return std::vector<Tensor>{x * 2, Tensor()};
  });
  for (const double value : {1., 2., 3.}) {
    const auto results = twice(torch::full({4}, value));
    EXPECT_EQ(results.size(), 2u);
    EXPECT_EQ(results[0].sum().item<double>(), 8 * value);
    EXPECT_FALSE(results[1].defined());
  }
  EXPECT_EQ(calls, 3);
}

TEST(Replay, PassesErrorsOn) {
  Replay fails([](const Tensor&) -> std::vector<Tensor> { throw std::runtime_error("no"); });
  EXPECT_THROW(fails(torch::zeros({1})), std::runtime_error);
}

/// Gradients of a product by a weight that changes in place between calls, as in training.
TEST(Replay, OnAGpuGivesWhatPlainCallsGive) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  torch::manual_seed(1);
  const Tensor weight = torch::randn({64, 64}, torch::kCUDA).requires_grad_(true);
  int calls = 0;
  const auto plain = [&](const Tensor& x) {
    const Tensor y = torch::silu(x.mm(weight));
    auto out = torch::autograd::grad({y}, {weight}, {torch::ones_like(y)});
    out.push_back(y.detach().sum());
    return out;
  };
  Replay replay([&](const Tensor& x) {
    ++calls;
    return plain(x);
  });
  for (int step = 0; step < 6; ++step) {
    if (step == 4) replay.forget();
    for (const std::int64_t rows : {32, 16}) {  // the second shape is never recorded
      const Tensor x = torch::randn({rows, 64}, torch::kCUDA);
      const auto expected = plain(x), results = replay(x);
      ASSERT_EQ(results.size(), 2u);
      for (std::size_t i = 0; i < 2; ++i)
        EXPECT_TRUE(torch::allclose(results[i], expected[i], 1e-4, 1e-4)) << "step " << step;
    }
    torch::NoGradGuard no_grad;
    weight.sub_(0.1);
  }
#ifdef SPECTRALQUANT_CUDA
  EXPECT_EQ(calls, 6 + 4);  // all of the second shape, and two each before and after forget()
#endif
}

TEST(Replay, OnAGpuAFunctionThatWaitsForTheDeviceIsCalledPlainly) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  Replay waits([](const Tensor& x) {
    return std::vector<Tensor>{x * x.sum().item<double>()};  // which cannot be recorded
  });
  for (int i = 1; i <= 4; ++i) {
    const Tensor x = torch::full({2}, i, torch::kCUDA);
    EXPECT_EQ(waits(x)[0][0].item<double>(), 2. * i * i);
  }
}

}  // namespace
}  // namespace spectralquant::tune
