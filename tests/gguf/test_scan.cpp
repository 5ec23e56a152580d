#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/scan.h"

namespace spectralquant::gguf {
namespace {

constexpr std::uint64_t kCols = 1000, kRows = 300;  // several chunks

/// An F32 tensor over values that outlive it.
Tensor view(const std::vector<float>& values) {
  return {"w",
          Type::F32,
          2,
          {kCols, kRows, 1, 1},
          reinterpret_cast<const std::byte*>(values.data()),
          4 * values.size()};
}

TEST(Scan, CountsWhatIsNotFiniteAndFindsTheFirst) {
  std::vector<float> values(kCols * kRows, 1.0f);
  EXPECT_EQ(scan_values(view(values)).n_not_finite, 0u);
  values[250 * kCols + 7] = std::nanf("");
  values[299 * kCols + 999] = std::numeric_limits<float>::infinity();
  values[120 * kCols + 3] = -std::numeric_limits<float>::infinity();
  for (const int n_threads : {1, 3}) {
    const ValueScan scan = scan_values(view(values), n_threads);
    EXPECT_EQ(scan.n_not_finite, 3u);
    EXPECT_EQ(not_finite_text(view(values), scan), "w holds an infinity at row 120, column 3");
  }
}

TEST(Scan, FindsTheLongestRunOfZerosAcrossChunks) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 40; ++trial) {
    std::vector<float> values(kCols * kRows, 1.0f);
    for (int run = 0; run < 4; ++run) {
      const std::uint64_t n = random() % (values.size() / 2), begin = random() % values.size();
      for (std::uint64_t i = begin; i < std::min<std::uint64_t>(begin + n, values.size()); ++i)
        values[i] = run % 2 ? 0.0f : -0.0f;
    }
    std::uint64_t run = 0, longest = 0, begin = 0;
    for (std::uint64_t i = 0; i < values.size(); ++i) {
      run = values[i] == 0 ? run + 1 : 0;
      if (run > longest) longest = run, begin = i + 1 - run;
    }
    const ValueScan scan = scan_values(view(values));
    EXPECT_EQ(scan.n_zeros, longest) << trial;
    EXPECT_EQ(scan.zeros_begin, begin) << trial;
  }
}

TEST(Scan, LongRunsOfZerosAreSuspicious) {
  std::vector<float> values(kCols * kRows, 1.0f);
  std::fill_n(values.begin() + 10 * kCols, 70 * kCols, 0.0f);
  EXPECT_FALSE(is_suspiciously_zero(view(values), scan_values(view(values))));
  std::fill_n(values.begin() + 10 * kCols, 75 * kCols, 0.0f);
  const ValueScan scan = scan_values(view(values));
  EXPECT_TRUE(is_suspiciously_zero(view(values), scan));
  EXPECT_EQ(zeros_text(view(values), scan),
            "w is zero from row 10 to row 84 (75000 of 300000 values in one run)");
  std::ranges::fill(values, 0.0f);
  EXPECT_EQ(zeros_text(view(values), scan_values(view(values))), "w is zero throughout");
}

TEST(Scan, SeesThroughTheScalesOfBlocks) {
  std::vector<std::byte> blocks(3 * 144);  // Q4_K: three super-blocks of zeros
  Tensor tensor{"q", Type::Q4_K, 2, {256, 3, 1, 1}, blocks.data(), blocks.size()};
  EXPECT_EQ(scan_values(tensor).n_zeros, 768u);
  const std::uint16_t infinity = 0x7c00;
  std::memcpy(blocks.data() + 144, &infinity, 2);  // its d
  const ValueScan scan = scan_values(tensor);
  EXPECT_EQ(scan.first / 256, 1u);  // 0 · infinity is NaN
  EXPECT_EQ(scan.n_not_finite, 256u);
}

TEST(Scan, IntegersHaveNothingToFind) {
  const std::vector<std::byte> bytes(64);
  EXPECT_EQ(scan_values({"i", Type::I32, 1, {16, 1, 1, 1}, bytes.data(), 64}).n_zeros, 0u);
  EXPECT_THROW(scan_values({"d", Type::F64, 1, {8, 1, 1, 1}, bytes.data(), 64}), Error);
}

}  // namespace
}  // namespace spectralquant::gguf
