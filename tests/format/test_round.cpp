#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <random>
#include <vector>

#include "golden/codec/read_codec_golden.h"
#include "spectralquant/core/error.h"
#include "spectralquant/format/round.h"

namespace spectralquant::format {
namespace {

using tests::read_codec_golden;

constexpr std::int64_t kGoldenRows = 12, kGoldenCols = 512;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

void expect_bytes_of_ggml(const GridMatrix& matrix, const std::string& golden) {
  const std::vector<std::byte> bytes = matrix.to_bytes(),
                               expected = read_codec_golden<std::byte>(golden);
  ASSERT_EQ(bytes.size(), expected.size());
  const std::size_t block = gguf::traits(matrix.grid->type).block_bytes;
  for (std::size_t i = 0; i < bytes.size(); i += block) {
    EXPECT_TRUE(std::equal(bytes.begin() + i, bytes.begin() + i + block, expected.begin() + i))
        << golden << ", row " << i / block / 2 << " (see README.md there), super-block "
        << i / block % 2;
  }
}

TEST(RoundLikeLlamaTest, GivesTheBytesOfGgmlWithoutImportance) {
  const auto x = read_codec_golden<float>("round_input.f32");
  for (const Grid* grid : all_grids()) {
    expect_bytes_of_ggml(round_like_llama(*grid, x.data(), kGoldenRows, kGoldenCols, nullptr),
                         "round_plain." + lower(name_of(*grid)));
  }
}

TEST(RoundLikeLlamaTest, GivesTheBytesOfGgmlWithImportance) {
  const auto x = read_codec_golden<float>("round_input.f32"),
             importance = read_codec_golden<float>("round_importance.f32");
  for (const Grid* grid : all_grids()) {
    expect_bytes_of_ggml(
        round_like_llama(*grid, x.data(), kGoldenRows, kGoldenCols, importance.data()),
        "round_importance." + lower(name_of(*grid)));
  }
}

TEST(RoundLikeLlamaTest, GivesTheSameBytesForAnyNumberOfThreads) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(37 * 256), importance(256);
  for (float& v : x) v = normal(random);
  for (float& v : importance) v = normal(random) * normal(random) + 2;
  for (const Grid* grid : all_grids()) {
    for (const float* weights :
         {static_cast<const float*>(nullptr), static_cast<const float*>(importance.data())}) {
      const auto one = round_like_llama(*grid, x.data(), 37, 256, weights, 1).to_bytes();
      for (int n_threads : {2, 5}) {
        EXPECT_EQ(one, round_like_llama(*grid, x.data(), 37, 256, weights, n_threads).to_bytes())
            << name_of(*grid) << ", " << n_threads << " threads";
      }
    }
  }
}

TEST(RoundLikeLlamaTest, ColumnsThatNothingCountsForAreLostInWholeRuns) {
  for (const auto& [type, n] : {std::pair(gguf::Type::Q4_K, 256),
                                {gguf::Type::Q2_K, 256},
                                {gguf::Type::Q6_K, 16},
                                {gguf::Type::Q3_K, 16},
                                {gguf::Type::IQ4_XS, 32},
                                {gguf::Type::IQ4_NL, 32},
                                {gguf::Type::Q4_0, 32},
                                {gguf::Type::Q8_0, 0}})
    EXPECT_EQ(columns_lost_without_importance(grid_of(type)), n) << name_of(grid_of(type));
}

TEST(RoundLikeLlamaTest, RefusesColumnsThatAreNoWholeSuperBlocks) {
  const std::vector<float> x(300);
  for (const Grid* grid : all_grids())
    EXPECT_THROW(round_like_llama(*grid, x.data(), 1, 300, nullptr), Error);
}

TEST(RoundLikeLlamaTest, AcceptsAnEmptyMatrix) {
  for (const Grid* grid : all_grids()) {
    EXPECT_EQ(round_like_llama(*grid, nullptr, 0, 256, nullptr).codes.size(), 0u);
    EXPECT_TRUE(round_like_llama(*grid, nullptr, 0, 256, nullptr).to_bytes().empty());
  }
}

}  // namespace
}  // namespace spectralquant::format
