#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/quantize/q4k_matrix.h"

namespace spectralquant::quantize {
namespace {

constexpr std::int64_t kRows = 5, kCols = 512;

/// Blocks of random bytes with finite fp16 scales.
std::vector<gguf::BlockQ4K> random_blocks() {
  std::mt19937 random(11);
  std::vector<gguf::BlockQ4K> blocks(kRows * kCols / 256);
  for (auto& block : blocks) {
    std::uint8_t bytes[sizeof block];
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    std::memcpy(&block, bytes, sizeof block);
    block.d &= 0xbfff;
    block.dmin &= 0xbfff;
  }
  return blocks;
}

TEST(Q4KMatrixTest, BlocksSurviveTheWayThroughTheMatrix) {
  const auto blocks = random_blocks();
  const auto again = Q4KMatrix::from_blocks(blocks.data(), kRows, kCols).to_blocks();
  ASSERT_EQ(again.size(), blocks.size());
  EXPECT_EQ(std::memcmp(again.data(), blocks.data(), blocks.size() * sizeof blocks[0]), 0);
}

TEST(Q4KMatrixTest, DecodesAsTheFileDecoderDoes) {
  const auto blocks = random_blocks();
  const Q4KMatrix matrix = Q4KMatrix::from_blocks(blocks.data(), kRows, kCols);
  std::vector<float> expected(kRows * kCols), values(kRows * kCols);
  gguf::find_decoder(gguf::Type::Q4_K)(reinterpret_cast<const std::byte*>(blocks.data()),
                                       expected.size(), expected.data());
  matrix.decode(0, kRows, values.data());
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)), 0);
  matrix.decode(2, 2, values.data());
  EXPECT_EQ(std::memcmp(values.data(), expected.data() + 2 * kCols, 2 * kCols * sizeof(float)), 0);
}

TEST(Q4KMatrixTest, HoldsWhatTheFormulaSays) {
  Q4KMatrix matrix(2, 512);
  matrix.d[3] = gguf::float_to_half(0.5f);  // row 1, columns 256..511
  matrix.dmin[3] = gguf::float_to_half(0.25f);
  matrix.scale[8 + 8 + 9 + 6] = 7;  // row 1, columns 480..511
  matrix.min[8 + 8 + 9 + 6] = 3;
  matrix.code[512 + 511] = 11;
  std::vector<float> row(512);
  matrix.decode(1, 1, row.data());
  EXPECT_EQ(row[511], 0.5f * 7 * 11 - 0.25f * 3);
  EXPECT_EQ(row[510], -0.75f);
  EXPECT_EQ(row[479], 0.f);
}

TEST(Q4KMatrixTest, BeginsAsZeros) {
  std::vector<float> values(512, 1.f);
  Q4KMatrix(2, 256).decode(0, 2, values.data());
  for (float v : values) ASSERT_EQ(v, 0.f);
}

TEST(Q4KMatrixTest, RefusesColumnsThatAreNoMultipleOf256) {
  try {
    Q4KMatrix(4, 100);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_NE(std::string(error.what()).find("100 columns"), std::string::npos);
  }
}

}  // namespace
}  // namespace spectralquant::quantize
