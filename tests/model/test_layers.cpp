#include <gtest/gtest.h>
#include <torch/autograd.h>

#include <cmath>

#include "model/difference.h"
#include "spectralquant/model/layers.h"
#include "spectralquant/model/rope.h"

// Every layer against its definition, written out plainly with small tensors.
namespace spectralquant::model {
namespace {

using torch::Tensor;
using torch::indexing::Slice;

class LayersTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(7); }
};

TEST_F(LayersTest, RmsNormIsItsFormula) {
  const auto x = torch::randn({2, 3, 8}), w = torch::randn({8});
  const auto wide = x.to(torch::kFloat64);
  const auto expected = wide / (wide.pow(2).mean(-1, true) + 1e-6).sqrt() * w;
  EXPECT_LT(difference(rms_norm(x, w, 1e-6), expected), 1e-6);
  EXPECT_EQ(rms_norm(x.to(torch::kBFloat16), w, 1e-6).scalar_type(), torch::kBFloat16);
}

TEST_F(LayersTest, L2NormBoundsTheNormAndHasAFiniteGradientAtZero) {
  auto x = torch::randn({4, 8});
  x[1] = 0;
  x[2] *= 1e-9;
  x.requires_grad_();
  const auto y = l2_norm(x, 1e-6);
  EXPECT_LT(difference(y[0], x[0] / x[0].norm()), 1e-6);
  EXPECT_LT(difference(y[1], torch::zeros({8})), 1e-12);
  EXPECT_LT(difference(y[2], x[2] / 1e-6), 1e-6);
  y.sum().backward();
  EXPECT_TRUE(torch::isfinite(x.grad()).all().item<bool>());
}

TEST_F(LayersTest, RotateTurnsPairsAndPassesTheRest) {
  const Rope rope{4, 100.0, {}, 1.0, false};
  const auto x = torch::randn({1, 3, 2, 6});
  const auto y = rotate(x, rope, 5);
  for (int t = 0; t < 3; ++t) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 2; ++i) {
        const double angle = (5 + t) * std::pow(100.0, -2.0 * i / 4), c = std::cos(angle),
                     s = std::sin(angle);
        const double a = x[0][t][h][i].item<double>(), b = x[0][t][h][i + 2].item<double>();
        EXPECT_NEAR(y[0][t][h][i].item<double>(), a * c - b * s, 1e-5);
        EXPECT_NEAR(y[0][t][h][i + 2].item<double>(), a * s + b * c, 1e-5);
      }
    }
  }
  EXPECT_EQ(difference(y.narrow(-1, 4, 2), x.narrow(-1, 4, 2)), 0);
}

TEST_F(LayersTest, RotateTurnsAdjacentPairsScaledAndLonger) {
  const Rope rope{4, 100.0, {0.5f, 0.25f}, 1.25, /*adjacent_pairs=*/true};
  const auto x = torch::randn({1, 3, 2, 6}), y = rotate(x, rope, 5);
  for (int t = 0; t < 3; ++t) {
    for (int i = 0; i < 2; ++i) {
      const double angle = (5 + t) * std::pow(100.0, -2.0 * i / 4) * rope.scale[i],
                   c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
      const double a = x[0][t][1][2 * i].item<double>(), b = x[0][t][1][2 * i + 1].item<double>();
      EXPECT_NEAR(y[0][t][1][2 * i].item<double>(), a * c - b * s, 1e-5);
      EXPECT_NEAR(y[0][t][1][2 * i + 1].item<double>(), a * s + b * c, 1e-5);
    }
  }
  EXPECT_EQ(difference(y.narrow(-1, 4, 2), x.narrow(-1, 4, 2)), 0);
}

TEST_F(LayersTest, RotateContinuesFromAPosition) {
  const Rope rope{8, 10000.0, {}, 1.0, false};
  const auto x = torch::randn({2, 9, 1, 8});
  EXPECT_LT(difference(rotate(x, rope, 3).narrow(1, 4, 5), rotate(x.narrow(1, 4, 5), rope, 7)),
            1e-6);
}

// q: [B, T, H, D], k, v: [B, G, S, D]
Tensor plain_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto group = q.size(2) / k.size(1), n_past = k.size(2) - q.size(1);
  auto out = torch::zeros_like(q);
  for (int b = 0; b < q.size(0); ++b) {
    for (int t = 0; t < q.size(1); ++t) {
      for (int h = 0; h < q.size(2); ++h) {
        const auto keys = k[b][h / group].narrow(0, 0, n_past + t + 1),
                   values = v[b][h / group].narrow(0, 0, n_past + t + 1);
        out[b][t][h] =
            torch::softmax(keys.mv(q[b][t][h]) / std::sqrt(static_cast<double>(q.size(3))), 0)
                .matmul(values);
      }
    }
  }
  return out;
}

TEST_F(LayersTest, AttentionIsItsFormulaAtEveryLengthAndPast) {
  for (const auto& [n_tokens, n_past] :
       std::vector<std::pair<int, int>>{{1, 0}, {5, 0}, {1, 7}, {4, 3}, {130, 2}, {257, 0}}) {
    const auto q = torch::randn({2, n_tokens, 4, 8});
    const auto k = torch::randn({2, 2, n_past + n_tokens, 8}),
               v = torch::randn({2, 2, n_past + n_tokens, 8});
    EXPECT_LT(difference(causal_attention(q, k, v), plain_attention(q, k, v)), 1e-5)
        << n_tokens << " after " << n_past;
  }
}

TEST_F(LayersTest, ConvolutionIsItsFormulaAndContinues) {
  const auto x = torch::randn({2, 11, 3}), w = torch::randn({3, 4});
  auto expected = torch::zeros_like(x);
  for (int t = 0; t < 11; ++t) {
    for (int j = 0; j < 4; ++j) {
      if (t - 3 + j >= 0) expected.select(1, t) += x.select(1, t - 3 + j) * w.select(1, j);
    }
  }
  EXPECT_LT(difference(causal_conv(x, w, nullptr), expected), 1e-6);
  auto state = torch::zeros({2, 3, 3});
  std::vector<Tensor> pieces;
  int first = 0;
  for (int length : {1, 2, 7, 1}) {
    pieces.push_back(causal_conv(x.narrow(1, first, length), w, &state));
    first += length;
  }
  EXPECT_LT(difference(torch::cat(pieces, 1), expected), 1e-6);
  EXPECT_EQ(difference(state, x.narrow(1, 8, 3)), 0);
}

struct DeltaInput {
  Tensor q, k, v, log_decay, beta;
  DeltaInput part(int first, int n) const {
    return {q.narrow(1, first, n), k.narrow(1, first, n), v.narrow(1, first, n),
            log_decay.narrow(1, first, n), beta.narrow(1, first, n)};
  }
};

DeltaInput random_delta(int n_tokens, int n_key_heads = 2, int n_value_heads = 4) {
  const auto unit = [&] { return l2_norm(torch::randn({2, n_tokens, n_key_heads, 8}), 1e-6); };
  return {unit() * 0.35, unit(), torch::randn({2, n_tokens, n_value_heads, 6}),
          -torch::rand({2, n_tokens, n_value_heads}), torch::rand({2, n_tokens, n_value_heads})};
}

Tensor run(const DeltaInput& in, Tensor* state) {
  return gated_delta_rule(in.q, in.k, in.v, in.log_decay, in.beta, state);
}

/// S ← e^g S + β k (v − e^g Sᵀk)ᵀ, y = Sᵀq in double, token by token; value head h reads key head h
/// mod n_key_heads.
Tensor plain_delta(const DeltaInput& in, Tensor* state) {
  auto out = torch::zeros(in.v.sizes(), torch::kFloat64);
  for (int b = 0; b < in.v.size(0); ++b) {
    for (int h = 0; h < in.v.size(2); ++h) {
      auto s = (*state)[b][h].to(torch::kFloat64).clone();
      const auto key_head = h % in.q.size(2);
      for (int t = 0; t < in.v.size(1); ++t) {
        const auto q = in.q[b][t][key_head].to(torch::kFloat64),
                   k = in.k[b][t][key_head].to(torch::kFloat64);
        s = s * std::exp(in.log_decay[b][t][h].item<double>());
        const auto write =
            (in.v[b][t][h].to(torch::kFloat64) - s.t().mv(k)) * in.beta[b][t][h].item<double>();
        s = s + torch::outer(k, write);
        out[b][t][h] = s.t().mv(q);
      }
      (*state)[b][h] = s.to(torch::kFloat32);
    }
  }
  return out;
}

TEST_F(LayersTest, DeltaRuleIsItsRecurrenceAtEveryLength) {
  for (int n_tokens : {1, 2, 63, 64, 65, 200}) {
    const auto in = random_delta(n_tokens);
    auto expected_state = torch::randn({2, 4, 8, 6}), state = expected_state.clone();
    const auto expected = plain_delta(in, &expected_state);
    EXPECT_LT(difference(run(in, &state), expected), 2e-5) << n_tokens;
    EXPECT_LT(difference(state, expected_state), 2e-5) << n_tokens;
    auto zeros = torch::zeros({2, 4, 8, 6});
    EXPECT_LT(difference(run(in, nullptr), plain_delta(in, &zeros)), 2e-5)
        << n_tokens << " without a state";
  }
}

TEST_F(LayersTest, DeltaRuleContinuesFromItsState) {
  const auto in = random_delta(150);
  auto whole_state = torch::zeros({2, 4, 8, 6}), state = whole_state.clone();
  const auto whole = run(in, &whole_state);
  std::vector<Tensor> pieces;
  int first = 0;
  for (int length : {1, 70, 1, 64, 14}) {
    pieces.push_back(run(in.part(first, length), &state));
    first += length;
  }
  EXPECT_LT(difference(torch::cat(pieces, 1), whole), 1e-5);
  EXPECT_LT(difference(state, whole_state), 1e-5);
}

TEST_F(LayersTest, DeltaRuleSurvivesRepeatedKeysAndNoDecay) {
  auto in = random_delta(128);
  in.k = in.k.narrow(1, 0, 1).expand_as(in.k).contiguous();
  in.log_decay = torch::zeros_like(in.log_decay);
  in.beta = torch::ones_like(in.beta);
  auto zeros = torch::zeros({2, 4, 8, 6});
  EXPECT_LT(difference(run(in, nullptr), plain_delta(in, &zeros)), 1e-4);
}

TEST_F(LayersTest, UnitLowerInverseByProductsIsThatBySubstitution) {
  for (const int n : {1, 2, 13, 64}) {
    // what stands on and above the diagonal is to be left alone
    const auto system = torch::rand({3, n, n}) * 0.4;
    const auto weights = torch::randn({3, n, n});
    std::vector<Tensor> inverse, gradient;
    for (const bool by_products : {false, true}) {
      const auto leaf = system.clone().requires_grad_();
      inverse.push_back(unit_lower_inverse(leaf, by_products));
      gradient.push_back(torch::autograd::grad({(inverse.back() * weights).sum()}, {leaf})[0]);
      const auto whole = system.tril(-1) + torch::eye(n);
      EXPECT_LT(
          difference(torch::matmul(whole, inverse.back().detach()), torch::eye(n).expand_as(whole)),
          1e-5)
          << n;
    }
    EXPECT_LT(difference(inverse[1].detach(), inverse[0].detach()), 1e-5) << n;
    EXPECT_LT(difference(gradient[1], gradient[0]), 1e-3) << n;
  }
}

TEST_F(LayersTest, DeltaRuleForgetsUnderStrongDecayWithoutNan) {
  auto in = random_delta(130);
  // e^(60 · 64) would overflow if it were ever formed
  in.log_decay = torch::full_like(in.log_decay, -60.0);
  in.q.requires_grad_();
  in.k.requires_grad_();
  in.log_decay.requires_grad_();
  auto zeros = torch::zeros({2, 4, 8, 6});
  const auto y = run(in, nullptr);
  EXPECT_LT(difference(y.detach(), plain_delta({in.q.detach(), in.k.detach(), in.v,
                                                in.log_decay.detach(), in.beta},
                                               &zeros)),
            1e-5);
  y.square().sum().backward();
  for (const auto& x : {in.q, in.k, in.log_decay})
    EXPECT_TRUE(torch::isfinite(x.grad()).all().item<bool>());
}

}  // namespace
}  // namespace spectralquant::model
