#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>
#include <bit>
#include <cstring>

#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/q4_k.h"

namespace spectralquant::gguf {
namespace {

BlockQ4K any_block() {
  const auto bytes = *rc::gen::container<std::array<std::uint8_t, sizeof(BlockQ4K)>>(
      rc::gen::arbitrary<std::uint8_t>());
  return std::bit_cast<BlockQ4K>(bytes);
}

TEST(Q4KTest, AnyBlockSurvivesUnpackAndPack) {
  EXPECT_TRUE(rc::check("pack(unpack(x)) == x", [] {
    const BlockQ4K block = any_block(), again = pack(unpack(block));
    RC_ASSERT(std::memcmp(&block, &again, sizeof block) == 0);
  }));
}

TEST(Q4KTest, UnpackedFieldsAreInRange) {
  EXPECT_TRUE(rc::check("fields fit the format", [] {
    const UnpackedQ4K values = unpack(any_block());
    for (std::uint8_t scale : values.scale) RC_ASSERT(scale <= 63);
    for (std::uint8_t min : values.min) RC_ASSERT(min <= 63);
    for (std::uint8_t code : values.code) RC_ASSERT(code <= 15);
  }));
}

TEST(Q4KTest, DecodingFollowsTheFormula) {
  EXPECT_TRUE(rc::check("value = d scale code - dmin min", [] {
    BlockQ4K block = any_block();
    block.d &= 0xbfff;  // below 2: no infinity or NaN
    block.dmin &= 0xbfff;
    const UnpackedQ4K fields = unpack(block);
    float values[256];
    find_decoder(Type::Q4_K)(reinterpret_cast<const std::byte*>(&block), 256, values);
    for (int i = 0; i < 256; ++i) {
      const float scale = half_to_float(fields.d) * fields.scale[i / 32],
                  min = half_to_float(fields.dmin) * fields.min[i / 32];
      RC_ASSERT(values[i] == scale * fields.code[i] - min);
    }
  }));
}

TEST(Q4KTest, EachFieldHasItsOwnPlace) {
  UnpackedQ4K values{};
  values.scale[5] = 0b110011;  // low four bits in byte 9, high two on top of byte 1
  values.min[6] = 0b100001;    // byte 10 and byte 6
  values.code[64 + 3] = 7;     // second group of 64, low half of its byte 3
  values.code[64 + 35] = 9;    // … and high half
  const BlockQ4K block = pack(values);
  EXPECT_EQ(block.scales[9], 0x03);
  EXPECT_EQ(block.scales[1], 0xc0);
  EXPECT_EQ(block.scales[10], 0x10);
  EXPECT_EQ(block.scales[6], 0x80);
  EXPECT_EQ(block.qs[32 + 3], 0x97);
}

}  // namespace
}  // namespace spectralquant::gguf
