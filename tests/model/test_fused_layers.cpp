#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>

#include <functional>
#include <vector>

#include "spectralquant/model/layers.h"

namespace spectralquant::model {
namespace {

using torch::Tensor;
using Layer = std::function<Tensor(const std::vector<Tensor>&)>;

/// Result and gradients of a layer on a GPU, where kernels of its own may run, against float32 on
/// the CPU, where it is put together from torch's operators.
void compare(const Layer& layer, const std::vector<Tensor>& inputs) {
  for (const auto type : {torch::kFloat32, torch::kBFloat16}) {
    SCOPED_TRACE(c10::toString(type));
    const auto run = [&](torch::Device device, bool exact) {
      std::vector<Tensor> leaves;
      for (const Tensor& input : inputs) {
        // vectors and weights stay float32, as in a model
        const Tensor rounded = input.dim() > 2 ? input.to(type).to(torch::kFloat32) : input;
        leaves.push_back((exact || input.dim() <= 2 ? rounded : rounded.to(type))
                             .to(device)
                             .clone()
                             .requires_grad_(true));
      }
      const Tensor y = layer(leaves);
      torch::manual_seed(3);
      const Tensor at_y = torch::randn(y.sizes()).to(torch::kBFloat16).to(y.device(), y.dtype());
      auto out = torch::autograd::grad({y}, leaves, {at_y});
      out.push_back(y.detach());
      for (Tensor& t : out) t = t.to(torch::kCPU, torch::kFloat32);
      return out;
    };
    const auto expected = run(torch::kCPU, true), results = run(torch::kCUDA, false);
    const double tolerance = type == torch::kFloat32 ? 2e-5 : 1.5e-2;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double error =
          (results[i] - expected[i]).norm().item<double>() / expected[i].norm().item<double>();
      EXPECT_LT(error, tolerance) << "of result " << i;
    }
  }
}

class FusedLayersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
    torch::manual_seed(7);
  }
};

TEST_F(FusedLayersTest, NormsAreThoseOfTorch) {
  for (const std::int64_t width : {2, 64, 130, 1024}) {
    compare([](const auto& in) { return rms_norm(in[0], in[1], 1e-6); },
            {torch::randn({3, 301, width}), torch::randn({width})});
  }
}

TEST_F(FusedLayersTest, GatesAreThoseOfTorch) {
  compare([](const auto& in) { return swiglu(in[0], in[1]); },
          {torch::randn({3, 7, 33}), torch::randn({3, 7, 33})});
}

TEST_F(FusedLayersTest, ConvolutionsAreThoseOfTorch) {
  for (const std::int64_t taps : {1, 4, 8}) {
    compare([](const auto& in) { return causal_conv(in[0], in[1], nullptr); },
            {torch::randn({3, 301, 70}), torch::randn({70, taps})});
  }
}

}  // namespace
}  // namespace spectralquant::model
