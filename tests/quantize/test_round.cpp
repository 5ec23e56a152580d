#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "golden/codec/read_codec_golden.h"
#include "spectralquant/core/error.h"
#include "spectralquant/quantize/round.h"

namespace spectralquant::quantize {
namespace {

using tests::read_codec_golden;

constexpr std::int64_t kRows = 12, kCols = 512;

void expect_bytes_of_ggml(const Q4KMatrix& matrix, const std::string& golden) {
  const std::vector<gguf::BlockQ4K> blocks = matrix.to_blocks(),
                                    expected = read_codec_golden<gguf::BlockQ4K>(golden);
  ASSERT_EQ(blocks.size(), expected.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(std::memcmp(&blocks[i], &expected[i], sizeof blocks[i]), 0)
        << "row " << i / 2 << " (see README.md there), super-block " << i % 2;
  }
}

TEST(RoundLikeLlamaTest, GivesTheBytesOfGgmlWithoutImportance) {
  const auto x = read_codec_golden<float>("round_input.f32");
  expect_bytes_of_ggml(round_like_llama(x.data(), kRows, kCols, nullptr), "round_plain.q4_k");
}

TEST(RoundLikeLlamaTest, GivesTheBytesOfGgmlWithImportance) {
  const auto x = read_codec_golden<float>("round_input.f32"),
             importance = read_codec_golden<float>("round_importance.f32");
  expect_bytes_of_ggml(round_like_llama(x.data(), kRows, kCols, importance.data()),
                       "round_importance.q4_k");
}

TEST(RoundLikeLlamaTest, GivesTheSameBytesForAnyNumberOfThreads) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(37 * 256), importance(256);
  for (float& v : x) v = normal(random);
  for (float& v : importance) v = normal(random) * normal(random) + 2;
  for (const float* weights :
       {static_cast<const float*>(nullptr), static_cast<const float*>(importance.data())}) {
    const auto one = round_like_llama(x.data(), 37, 256, weights, 1).to_blocks();
    for (int n_threads : {2, 5}) {
      const auto many = round_like_llama(x.data(), 37, 256, weights, n_threads).to_blocks();
      EXPECT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof one[0]), 0) << n_threads;
    }
  }
}

TEST(RoundLikeLlamaTest, RefusesColumnsThatAreNoMultipleOf256) {
  const std::vector<float> x(300);
  EXPECT_THROW(round_like_llama(x.data(), 1, 300, nullptr), Error);
}

TEST(RoundLikeLlamaTest, AcceptsAnEmptyMatrix) {
  EXPECT_EQ(round_like_llama(nullptr, 0, 256, nullptr).code.size(), 0u);
}

}  // namespace
}  // namespace spectralquant::quantize
