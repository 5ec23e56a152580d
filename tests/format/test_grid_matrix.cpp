#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/format/grid_matrix.h"
#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::format {
namespace {

constexpr std::int64_t kRows = 5, kCols = 512;

/// A matrix of random numbers of the format, with finite fp16 scales of either sign.
GridMatrix random_matrix(const Grid& grid) {
  std::mt19937 random(11);
  GridMatrix out(grid, kRows, kCols);
  const auto fill = [&](std::vector<std::int8_t>& values, Range range) {
    std::uniform_int_distribution<int> number(range.lowest, range.highest);
    for (auto& v : values) v = static_cast<std::int8_t>(number(random));
  };
  fill(out.codes, grid.code);
  fill(out.scales, grid.scale);
  fill(out.mins, grid.min);
  for (auto* halves : {&out.d, &out.dmin}) {
    for (auto& v : *halves) v = static_cast<std::uint16_t>(random() & 0xbfff);
  }
  return out;
}

bool same(const GridMatrix& a, const GridMatrix& b) {
  return a.grid == b.grid && a.codes == b.codes && a.scales == b.scales && a.mins == b.mins &&
         a.d == b.d && a.dmin == b.dmin;
}

TEST(GridMatrixTest, NumbersSurviveTheWayThroughTheBytes) {
  for (const Grid* grid : all_grids()) {
    SCOPED_TRACE(name_of(*grid));
    const GridMatrix matrix = random_matrix(*grid);
    const auto bytes = matrix.to_bytes();
    EXPECT_EQ(bytes.size(), kRows * kCols / grid->super_block *
                                static_cast<std::int64_t>(gguf::traits(grid->type).block_bytes));
    EXPECT_EQ(bytes, matrix.to_bytes(3));
    EXPECT_TRUE(same(GridMatrix::from_bytes(*grid, bytes.data(), kRows, kCols), matrix));
    // Files promise no alignment.
    std::vector<std::byte> shifted(bytes.size() + 1);
    std::copy(bytes.begin(), bytes.end(), shifted.begin() + 1);
    EXPECT_TRUE(same(GridMatrix::from_bytes(*grid, shifted.data() + 1, kRows, kCols), matrix));
  }
}

TEST(GridMatrixTest, AnyBytesSurviveTheWayThroughTheMatrix) {
  std::mt19937 random(12);
  for (const Grid* grid : all_grids()) {
    std::vector<std::byte> bytes(random_matrix(*grid).to_bytes().size());
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    EXPECT_EQ(GridMatrix::from_bytes(*grid, bytes.data(), kRows, kCols).to_bytes(), bytes)
        << name_of(*grid);
  }
}

TEST(GridMatrixTest, DecodesAsTheFileDecoderDoes) {
  for (const Grid* grid : all_grids()) {
    SCOPED_TRACE(name_of(*grid));
    const GridMatrix matrix = random_matrix(*grid);
    std::vector<float> expected(kRows * kCols), values(kRows * kCols);
    gguf::find_decoder(grid->type)(matrix.to_bytes().data(), expected.size(), expected.data());
    matrix.decode(0, kRows, values.data());
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)), 0);
    matrix.decode(2, 2, values.data());
    EXPECT_EQ(std::memcmp(values.data(), expected.data() + 2 * kCols, 2 * kCols * sizeof(float)),
              0);
  }
}

TEST(GridMatrixTest, HoldsWhatTheFormulaSays) {
  GridMatrix matrix(Q4_K::kGrid, 2, 512);
  matrix.d[3] = gguf::float_to_half(0.5f);  // row 1, columns 256..511
  matrix.dmin[3] = gguf::float_to_half(0.25f);
  matrix.scales[8 + 8 + 9 + 6] = 7;  // row 1, columns 480..511
  matrix.mins[8 + 8 + 9 + 6] = 3;
  matrix.codes[512 + 511] = 11;
  std::vector<float> row(512);
  matrix.decode(1, 1, row.data());
  EXPECT_EQ(row[511], 0.5f * 7 * 11 - 0.25f * 3);
  EXPECT_EQ(row[510], -0.75f);
  EXPECT_EQ(row[479], 0.f);
}

TEST(GridMatrixTest, LevelsNeedNotBeEvenlySpaced) {
  constexpr std::int8_t levels[] = {-127, -9, 1, 113};
  const Grid grid{gguf::Type::IQ4_NL, 32, 32, {0, 3}, {1, 1}, {0, 0}, 25, levels};
  GridMatrix matrix(grid, 1, 32);
  EXPECT_TRUE(matrix.mins.empty());
  matrix.d[0] = gguf::float_to_half(0.5f);
  matrix.scales[0] = 1;
  matrix.codes[7] = 3;
  std::vector<float> row(32);
  matrix.decode(0, 1, row.data());
  EXPECT_EQ(row[7], 56.5f);
  EXPECT_EQ(row[8], -63.5f);
}

TEST(GridMatrixTest, RowsAreCopiedWhole) {
  for (const Grid* grid : all_grids()) {
    const GridMatrix from = random_matrix(*grid);
    GridMatrix to(*grid, 3, kCols);
    to.copy_rows(from, 3, 2, 1);
    std::vector<float> expected(2 * kCols), values(3 * kCols);
    from.decode(3, 2, expected.data());
    to.decode(0, 3, values.data());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), values.begin() + kCols))
        << name_of(*grid);
    EXPECT_EQ(values[0], 0.f);
  }
}

TEST(GridMatrixTest, BeginsAsZeros) {
  for (const Grid* grid : all_grids()) {
    std::vector<float> values(512, 1.f);
    GridMatrix(*grid, 2, 256).decode(0, 2, values.data());
    for (float v : values) ASSERT_EQ(v, 0.f);
  }
}

TEST(GridMatrixTest, RefusesColumnsThatAreNoWholeSuperBlocks) {
  try {
    GridMatrix(Q4_K::kGrid, 4, 100);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_NE(std::string(error.what()).find("100 columns cannot be Q4_K"), std::string::npos);
  }
}

TEST(Formats, AreFoundByTheirType) {
  for (const Grid* grid : all_grids()) {
    EXPECT_EQ(find_grid(grid->type), grid);
    EXPECT_EQ(with_format(*grid, [](auto format) { return &format.kGrid; }), grid);
    EXPECT_EQ(grid->super_block, static_cast<int>(gguf::traits(grid->type).block_values));
    EXPECT_EQ(grid->super_block % grid->block, 0);
  }
  EXPECT_EQ(find_grid(gguf::Type::F16), nullptr);
  try {
    grid_of(gguf::Type::F16);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadUsage);
    EXPECT_NE(std::string(error.what()).find("cannot be quantized to F16"), std::string::npos);
  }
}

}  // namespace
}  // namespace spectralquant::format
