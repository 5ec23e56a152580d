#include <gtest/gtest.h>

#include <cstring>

#include "spectralquant/format/formats.h"
#include "spectralquant/gguf/codec/k_blocks.h"

namespace spectralquant::format {
namespace {

TEST(Q4KTest, EachFieldHasItsOwnPlace) {
  SuperBlock values;
  values.scales[5] = 0b110011;  // low four bits in byte 9, high two on top of byte 1
  values.mins[6] = 0b100001;    // byte 10 and byte 6
  values.codes[64 + 3] = 7;     // second group of 64, low half of its byte 3
  values.codes[64 + 35] = 9;    // … and high half
  gguf::BlockQ4K block;
  std::byte bytes[sizeof block];
  Q4_K::pack(values, bytes);
  std::memcpy(&block, bytes, sizeof block);
  EXPECT_EQ(block.scales[9], 0x03);
  EXPECT_EQ(block.scales[1], 0xc0);
  EXPECT_EQ(block.scales[10], 0x10);
  EXPECT_EQ(block.scales[6], 0x80);
  EXPECT_EQ(block.qs[32 + 3], 0x97);
}

}  // namespace
}  // namespace spectralquant::format
