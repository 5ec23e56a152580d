#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstring>
#include <random>

#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/tune/latent_matrix.h"

namespace spectralquant::tune {
namespace {

using format::GridMatrix;

/// Random numbers of the format, with what is degenerate in it: no step, no offset, a super-block
/// of nothing, a negative d.
GridMatrix random_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  GridMatrix out(format::Q4_K::kGrid, rows, cols);
  const auto half = [&](double scale) {
    return gguf::float_to_half(
        static_cast<float>(scale * static_cast<double>(1 + random() % 1000)));
  };
  for (auto& v : out.codes) v = random() % 16;
  for (auto& v : out.scales) v = random() % 8 == 0 ? 0 : random() % 64;
  for (auto& v : out.mins) v = random() % 8 == 0 ? 0 : random() % 64;
  for (auto& v : out.d)
    v = random() % 6 == 0 ? 0 : random() % 12 == 0 ? gguf::float_to_half(-0.001f) : half(1e-6);
  for (auto& v : out.dmin) v = random() % 6 == 0 ? 0 : half(1e-6);
  return out;
}

torch::Tensor decoded(const GridMatrix& matrix) {
  torch::Tensor out = torch::empty({matrix.rows, matrix.cols});
  matrix.decode(0, matrix.rows, out.data_ptr<float>());
  return out;
}

bool same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  return a.numel() == b.numel() &&
         std::memcmp(a.data_ptr<float>(), b.data_ptr<float>(),
                     static_cast<std::size_t>(a.numel()) * sizeof(float)) == 0;
}

torch::Tensor noise(std::int64_t rows, std::int64_t cols, double scale) {
  return torch::randn({rows, cols}) * scale;
}

// −0 and 0 are one value: a block without a step decodes to 0 · code − 0, whatever its codes.
bool same_values(const torch::Tensor& a, const torch::Tensor& b) {
  return same_bits(a + 0.0, b + 0.0);
}

TEST(LatentMatrix, StartsAsTheSolvedMatrixAndPacksWhatItDecodes) {
  rc::check([] {
    const auto seed = *rc::gen::inRange<std::uint64_t>(0, 1'000'000);
    torch::manual_seed(seed);
    const std::int64_t rows = *rc::gen::inRange(1, 5), cols = 256 * *rc::gen::inRange(1, 3);
    const GridMatrix solved = random_matrix(rows, cols, seed);
    const torch::Tensor start = decoded(solved), original = start + noise(rows, cols, 0.01);
    LatentMatrix latent(original, solved, 0.35, torch::kCPU);
    RC_ASSERT(same_values(latent.decode(), start));
    RC_ASSERT(same_values(decoded(latent.pack()), start));
    for (int step = 0; step < 4; ++step) {
      latent.pull_back(noise(rows, cols, 1.0));
      latent.update({0.3, 2.0, 0.05, 0}, step, {});
      RC_ASSERT(same_values(decoded(latent.pack()), latent.decode()));
      const GridMatrix packed =
          GridMatrix::from_bytes(format::Q4_K::kGrid, latent.pack().to_bytes().data(), rows, cols);
      RC_ASSERT(same_values(decoded(packed), latent.decode()));
      RC_ASSERT(latent.decode().isfinite().all().item<bool>());
    }
  });
}

TEST(LatentMatrix, AWeightBeyondItsCellStartsInsideItOnItsOwnSide) {
  const std::int64_t rows = 2, cols = 256;
  GridMatrix solved(format::Q4_K::kGrid, rows, cols);
  std::fill(solved.codes.begin(), solved.codes.end(), 7);
  std::fill(solved.scales.begin(), solved.scales.end(), 32);
  std::fill(solved.d.begin(), solved.d.end(), gguf::float_to_half(0.25f));
  const torch::Tensor value = decoded(solved);  // steps of 8
  LatentMatrix latent(value + 20, solved, 0.35, torch::kCPU);
  EXPECT_TRUE(torch::allclose(latent.weight.value.view({rows, cols}), value + 0.35 * 8));
  LatentMatrix other(value - 20, solved, 0.25, torch::kCPU);
  EXPECT_TRUE(torch::allclose(other.weight.value.view({rows, cols}), value - 0.25 * 8));
  LatentMatrix near(value + 1, solved, 0.35, torch::kCPU);
  EXPECT_TRUE(torch::equal(near.weight.value.view({rows, cols}), value + 1));
}

/// The plain version: autograd through the formula, each rounding replaced by x + (round(x) − x)
/// without a gradient.
torch::Tensor straight_through(const torch::Tensor& x, const torch::Tensor& rounded) {
  return x + (rounded - x).detach();
}

TEST(LatentMatrix, GradientsAreThoseOfAutogradThroughTheFormula) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    torch::manual_seed(seed);
    const std::int64_t rows = 3, cols = 512;
    GridMatrix solved = random_matrix(rows, cols, seed);
    for (auto& v : solved.scales)
      v = 1 + v % 62;  // the plain formula has no answer for a step of 0
    for (auto& v : solved.d) v = gguf::float_to_half(0.001f * static_cast<float>(1 + v % 7));
    LatentMatrix latent(decoded(solved) + noise(rows, cols, 0.02), solved, 0.49, torch::kCPU);
    // some beyond the outermost codes
    latent.weight.value += torch::randn_like(latent.weight.value) * 0.1;
    latent.scale.value += torch::rand_like(latent.scale.value) * 0.8 - 0.4;
    latent.d.value += torch::randn_like(latent.d.value) * 0.01;

    const auto leaf = [](const Parameter& p) {
      return p.value.detach().clone().requires_grad_(true);
    };
    const torch::Tensor w = leaf(latent.weight), s = leaf(latent.scale), m = leaf(latent.min),
                        d = leaf(latent.d), dmin = leaf(latent.dmin);
    const auto half_of = [&](const std::vector<std::uint16_t>& bits) {
      std::vector<float> values;
      for (auto v : bits) values.push_back(gguf::half_to_float(v));
      return torch::tensor(values).view({rows, cols / 256, 1});
    };
    const auto super = [](const torch::Tensor& base, const torch::Tensor& change) {
      const torch::Tensor x = base * (1 + change);
      return straight_through(x, x.to(torch::kFloat16).to(torch::kFloat32)).repeat_interleave(8, 1);
    };
    const torch::Tensor step = super(half_of(solved.d), d) * straight_through(s, s.round());
    const torch::Tensor offset = super(half_of(solved.dmin), dmin) * straight_through(m, m.round());
    const torch::Tensor position = (w + offset) / step;
    const torch::Tensor value =
        straight_through(position, position.round()).clamp(0, 15) * step - offset;
    EXPECT_TRUE(torch::allclose(value.view({rows, cols}), latent.decode(), 1e-4, 1e-5));

    const torch::Tensor gradient = torch::randn({rows, cols});
    value.backward(gradient.view(value.sizes()));
    latent.pull_back(gradient.clone());
    const auto compare = [&](const torch::Tensor& plain, const Parameter& fast, const char* what) {
      const double error = (plain.grad() - fast.gradient).norm().item<double>() /
                           std::max(1e-9, plain.grad().norm().item<double>());
      EXPECT_LT(error, 2e-3) << what << ", seed " << seed;
    };
    compare(w, latent.weight, "weight");
    compare(s, latent.scale, "scale");
    compare(m, latent.min, "min");
    compare(d, latent.d, "d");
    compare(dmin, latent.dmin, "dmin");
  }
}

TEST(LatentMatrix, ScalesStayInTheFormatAndDeadBlocksStayDead) {
  torch::manual_seed(2);
  const GridMatrix solved = random_matrix(4, 512, 2);
  LatentMatrix latent(decoded(solved), solved, 0.35, torch::kCPU);
  const torch::Tensor dead = latent.scale.value == 0, before = latent.weight.value.clone();
  ASSERT_TRUE(dead.any().item<bool>());
  for (int step = 0; step < 30; ++step) {
    latent.pull_back(torch::randn({4, 512}));
    latent.update({0.1, 10.0, 0.01, 0}, step, {});
  }
  EXPECT_TRUE(torch::equal(latent.scale.value == 0, dead));
  EXPECT_GE(latent.min.value.min().item<float>(), 0);
  EXPECT_LE(latent.scale.value.max().item<float>(), 63);
  EXPECT_TRUE(
      torch::equal(torch::where(dead, latent.weight.value, before), before.where(dead, before)));
  EXPECT_TRUE(((latent.weight.value - before).abs().amax(-1, true) == 0)
                  .logical_or(dead.logical_not())
                  .all()
                  .item<bool>());
}

}  // namespace
}  // namespace spectralquant::tune
