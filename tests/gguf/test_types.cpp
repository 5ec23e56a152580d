#include <gtest/gtest.h>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/types.h"

namespace spectralquant::gguf {
namespace {

// Expected: ggml_type_name, ggml_blck_size and ggml_type_size of ggml 0.27.0, all types, printed by
// a program linked to it.
constexpr std::string_view kGgml[] = {
    "0 f32 1 4",         "1 f16 1 2",         "2 q4_0 32 18",      "3 q4_1 32 20",
    "6 q5_0 32 22",      "7 q5_1 32 24",      "8 q8_0 32 34",      "9 q8_1 32 36",
    "10 q2_k 256 84",    "11 q3_k 256 110",   "12 q4_k 256 144",   "13 q5_k 256 176",
    "14 q6_k 256 210",   "15 q8_k 256 292",   "16 iq2_xxs 256 66", "17 iq2_xs 256 74",
    "18 iq3_xxs 256 98", "19 iq1_s 256 50",   "20 iq4_nl 32 18",   "21 iq3_s 256 110",
    "22 iq2_s 256 82",   "23 iq4_xs 256 136", "24 i8 1 1",         "25 i16 1 2",
    "26 i32 1 4",        "27 i64 1 8",        "28 f64 1 8",        "29 iq1_m 256 56",
    "30 bf16 1 2",       "34 tq1_0 256 54",   "35 tq2_0 256 66",   "39 mxfp4 32 17",
    "40 nvfp4 64 36",    "41 q1_0 128 18",    "42 q2_0 64 18"};

TEST(Types, LayoutsAreGgmls) {
  std::vector<std::string> known;
  for (std::uint32_t number = 0; number < 200; ++number) {
    const auto layout = find_traits(number);
    if (!layout) continue;
    std::string name(layout->name);
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    known.push_back(std::to_string(number) + " " + name + " " +
                    std::to_string(layout->block_values) + " " +
                    std::to_string(layout->block_bytes));
  }
  EXPECT_EQ(known, std::vector<std::string>(std::begin(kGgml), std::end(kGgml)));
}

TEST(Types, RemovedAndFutureNumbersAreUnknown) {
  for (const std::uint32_t number : {4u, 5u, 31u, 36u, 63u, 64u, 0xffffffffu})
    EXPECT_FALSE(find_traits(number)) << number;
  EXPECT_THROW(traits(static_cast<Type>(31)), Error);
}

TEST(Types, NamesIgnoreCase) {
  EXPECT_EQ(type_by_name("q4_k"), Type::Q4_K);
  EXPECT_EQ(type_by_name("BF16"), Type::BF16);
  EXPECT_FALSE(type_by_name("q4"));
  EXPECT_FALSE(type_by_name(""));
}

TEST(Types, BitsAndDecodability) {
  EXPECT_DOUBLE_EQ(bits_per_weight(Type::Q4_K), 4.5);
  EXPECT_DOUBLE_EQ(bits_per_weight(Type::BF16), 16);
  for (std::uint32_t number = 0; number < 64; ++number) {
    const auto layout = find_traits(number);
    EXPECT_EQ(layout && layout->decodable,
              layout && find_decoder(static_cast<Type>(number)) != nullptr)
        << number;
  }
  EXPECT_TRUE(traits(Type::Q4_K).decodable);
  EXPECT_FALSE(traits(Type::Q8_K).decodable);
}

}  // namespace
}  // namespace spectralquant::gguf
