#pragma once
#include <cstddef>
#include <cstdint>

namespace spectralquant::gguf {

/// One Q4_K super-block of 256 values as ggml stores it (block_q4_K, 144 bytes, little-endian).
///
/// value[i] = d * scale[i / 32] * code[i] - dmin * min[i / 32] with 6-bit scale and min packed in
/// `scales`, and 4-bit codes: each 64 values keep the first 32 in the low halves and the next 32 in
/// the high halves of 32 bytes.
struct BlockQ4K {
  std::uint16_t d;     ///< fp16 super-scale
  std::uint16_t dmin;  ///< fp16 super-scale of the mins
  std::uint8_t scales[12];
  std::uint8_t qs[128];
};
static_assert(sizeof(BlockQ4K) == 144);

/// The same super-block, one field a number.
struct UnpackedQ4K {
  std::uint16_t d, dmin;   ///< fp16 bits
  std::uint8_t scale[8];   ///< 0..63
  std::uint8_t min[8];     ///< 0..63
  std::uint8_t code[256];  ///< 0..15
};

UnpackedQ4K unpack(const BlockQ4K& block);
BlockQ4K pack(const UnpackedQ4K& values);  ///< fields must be in range

}  // namespace spectralquant::gguf
