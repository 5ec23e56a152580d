#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::gguf {
namespace {

#ifdef __FLT16_MAX__  // the compiler's own binary16 is the oracle

std::uint16_t compiler_half(float value) {
  return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
}

void expect_same_half(std::uint32_t bits) {
  const float value = std::bit_cast<float>(bits);
  if (std::isnan(value)) {
    ASSERT_TRUE(std::isnan(half_to_float(float_to_half(value))));
  } else {
    ASSERT_EQ(float_to_half(value), compiler_half(value)) << std::hexfloat << value;
  }
}

TEST(HalfTest, EveryHalfBecomesTheFloatOfTheCompiler) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const float expected =
        static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(h)));
    const float value = half_to_float(static_cast<std::uint16_t>(h));
    ASSERT_EQ(std::bit_cast<std::uint32_t>(value), std::bit_cast<std::uint32_t>(expected)) << h;
  }
}

TEST(HalfTest, TiesAndTheirNeighboursRoundAsTheCompilerRounds) {
  for (std::uint32_t h = 0; h < 0x7c00; ++h) {
    const float low = half_to_float(static_cast<std::uint16_t>(h));
    const float high = h == 0x7bff ? 65536.f : half_to_float(static_cast<std::uint16_t>(h + 1));
    const std::uint32_t middle = std::bit_cast<std::uint32_t>(low + (high - low) / 2);
    for (std::uint32_t bits : {std::bit_cast<std::uint32_t>(low), middle - 1, middle, middle + 1}) {
      expect_same_half(bits);
      expect_same_half(bits | 0x80000000u);
    }
  }
}

TEST(HalfTest, RandomFloatsRoundAsTheCompilerRounds) {
  std::mt19937 random(20240229);
  for (int i = 0; i < 1'000'000; ++i) expect_same_half(static_cast<std::uint32_t>(random()));
  for (int i = 0; i < 1'000'000; ++i) {  // exponents around the range of a half
    expect_same_half((100u + random() % 46u) << 23 | (random() & 0x807fffffu));
  }
}

#endif

TEST(HalfTest, EveryHalfSurvivesTheWayThroughFloat) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7fffu) > 0x7c00u) continue;  // NaN: payload may change
    ASSERT_EQ(float_to_half(half_to_float(static_cast<std::uint16_t>(h))), h);
  }
}

TEST(HalfTest, OverflowIsInfinityAndUnderflowIsZero) {
  EXPECT_EQ(float_to_half(65519.99f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.f), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(float_to_half(0x1p-25f), 0);  // a tie: to even
  EXPECT_EQ(float_to_half(0x1.8p-25f), 1);
  EXPECT_EQ(float_to_half(-1e-30f), 0x8000);
}

TEST(HalfTest, Bfloat16IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(bfloat16_to_float(0x3f80), 1.f);
  EXPECT_EQ(bfloat16_to_float(0xc040), -3.f);
}

}  // namespace
}  // namespace spectralquant::gguf
