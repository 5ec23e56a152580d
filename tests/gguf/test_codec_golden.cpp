#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <vector>

#include "golden/codec/read_codec_golden.h"
#include "spectralquant/gguf/codec/decoder.h"

namespace spectralquant::gguf {
namespace {

using tests::read_codec_golden;

struct Format {
  const char* name;
  Type type;
};
void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

const Format kFormats[] = {
    {"F16", Type::F16},       {"BF16", Type::BF16},     {"Q4_0", Type::Q4_0},
    {"Q4_1", Type::Q4_1},     {"Q5_0", Type::Q5_0},     {"Q5_1", Type::Q5_1},
    {"Q8_0", Type::Q8_0},     {"Q2_K", Type::Q2_K},     {"Q3_K", Type::Q3_K},
    {"Q4_K", Type::Q4_K},     {"Q5_K", Type::Q5_K},     {"Q6_K", Type::Q6_K},
    {"IQ4_NL", Type::IQ4_NL}, {"IQ4_XS", Type::IQ4_XS}, {"IQ2_XXS", Type::IQ2_XXS},
    {"IQ2_XS", Type::IQ2_XS}, {"IQ2_S", Type::IQ2_S},   {"IQ3_XXS", Type::IQ3_XXS},
    {"IQ3_S", Type::IQ3_S},   {"IQ1_S", Type::IQ1_S},   {"IQ1_M", Type::IQ1_M},
    {"TQ1_0", Type::TQ1_0},   {"TQ2_0", Type::TQ2_0},   {"Q1_0", Type::Q1_0},
    {"Q2_0", Type::Q2_0},     {"MXFP4", Type::MXFP4},   {"NVFP4", Type::NVFP4}};

class CodecGoldenTest : public testing::TestWithParam<Format> {
 protected:
  const std::vector<std::byte> bytes =
      read_codec_golden<std::byte>(std::string(GetParam().name) + ".bytes");
  const std::vector<float> expected =
      read_codec_golden<float>(std::string(GetParam().name) + ".f32");
};

TEST_P(CodecGoldenTest, DecodesToTheBitsOfGgml) {
  std::vector<float> values(expected.size());
  find_decoder(GetParam().type)(bytes.data(), values.size(), values.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << "value " << i << ": " << values[i] << ", ggml " << expected[i];
  }
}

TEST_P(CodecGoldenTest, ReadsUnalignedBytes) {
  std::vector<std::byte> shifted(bytes.size() + 1);
  std::memcpy(shifted.data() + 1, bytes.data(), bytes.size());
  std::vector<float> values(expected.size());
  find_decoder(GetParam().type)(shifted.data() + 1, values.size(), values.data());
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)), 0);
}

INSTANTIATE_TEST_SUITE_P(EveryFormat, CodecGoldenTest, testing::ValuesIn(kFormats),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(FindDecoderTest, CopiesF32) {
  const float in[] = {1.5f, -0.f, 1e-40f};
  float out[3];
  find_decoder(Type::F32)(reinterpret_cast<const std::byte*>(in), 3, out);
  EXPECT_EQ(std::memcmp(in, out, sizeof in), 0);
}

TEST(FindDecoderTest, HasNoneForTypesThatAreNotWeights) {
  EXPECT_EQ(find_decoder(Type::I32), nullptr);
  EXPECT_EQ(find_decoder(Type::Q8_1), nullptr);  // of activations, never in a file
}

}  // namespace
}  // namespace spectralquant::gguf
