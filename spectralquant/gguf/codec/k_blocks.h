#pragma once
#include <cstdint>

namespace spectralquant::gguf {

// The super-blocks of 256 values as ggml stores them, little-endian.

/// value[i] = d * scale[i / 16] * code[i] - dmin * min[i / 16] with 2-bit codes.
struct BlockQ2K {
  /// a block of 16 values each: scale in the low four bits, min in the high four
  std::uint8_t scales[16];
  /// each 128 values share 32 bytes: values 32 k … 32 k + 31 in bits 2 k, 2 k + 1
  std::uint8_t qs[64];
  std::uint16_t d, dmin;
};
static_assert(sizeof(BlockQ2K) == 84);

/// value[i] = d * scale[i / 16] * (q[i] - 4), q of three bits.
struct BlockQ3K {
  std::uint8_t hmask[32];   ///< third bit of value v: bit v / 32 of byte v % 32
  std::uint8_t qs[64];      ///< low two bits, laid out as in Q2_K
  std::uint8_t scales[12];  ///< 16 six-bit scales, stored + 32
  std::uint16_t d;
};
static_assert(sizeof(BlockQ3K) == 110);

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

/// As Q4_K with 5-bit codes.
struct BlockQ5K {
  std::uint16_t d, dmin;
  std::uint8_t scales[12];  ///< as in Q4_K
  std::uint8_t qh[32];      ///< fifth bit of value v: bit v / 32 of byte v % 32
  std::uint8_t qs[128];     ///< low four bits, laid out as in Q4_K
};
static_assert(sizeof(BlockQ5K) == 176);

/// value[i] = d * scale[i / 16] * (q[i] - 32), q of six bits.
struct BlockQ6K {
  /// low four bits: each 128 values share 64 bytes, the first 64 values in the low halves
  std::uint8_t ql[128];
  /// high two bits: each 128 values share 32 bytes, values 32 k … 32 k + 31 in bits 2 k, 2 k + 1
  std::uint8_t qh[64];
  std::int8_t scales[16];  ///< a block of 16 values each
  std::uint16_t d;
};
static_assert(sizeof(BlockQ6K) == 210);

namespace codec {

/// The 6-bit scales and mins of Q4_K and Q5_K. For blocks 0..3 they are the low six bits of bytes
/// 0..3 and 4..7; for blocks 4..7 the low four bits share bytes 8..11, and the high two bits top up
/// bytes 0..3 and 4..7.
inline void unpack_scales(const std::uint8_t packed[12], std::uint8_t scale[8],
                          std::uint8_t min[8]) {
  for (int j = 0; j < 4; ++j) {
    scale[j] = packed[j] & 63;
    min[j] = packed[j + 4] & 63;
    scale[j + 4] = static_cast<std::uint8_t>((packed[j + 8] & 15) | (packed[j] >> 6 << 4));
    min[j + 4] = static_cast<std::uint8_t>((packed[j + 8] >> 4) | (packed[j + 4] >> 6 << 4));
  }
}

/// The way back; a number above 63 spills into its neighbour, as in ggml.
inline void pack_scales(const std::uint8_t scale[8], const std::uint8_t min[8],
                        std::uint8_t packed[12]) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<std::uint8_t>(scale[j] | scale[j + 4] >> 4 << 6);
    packed[j + 4] = static_cast<std::uint8_t>(min[j] | min[j + 4] >> 4 << 6);
    packed[j + 8] = static_cast<std::uint8_t>((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
  }
}

/// Scale of block b of 16 values of Q3_K. Low four bits: byte b % 8, low half for b < 8, high half
/// above. High two bits: byte 8 + b % 4, at bit 2 (b / 4).
inline int unpack_scale_q3_k(const std::uint8_t packed[12], int b) {
  const int low = packed[b % 8] >> (b < 8 ? 0 : 4) & 15;
  const int high = packed[8 + b % 4] >> (2 * (b / 4)) & 3;
  return (low | high << 4) - 32;
}

/// The way back, into bytes that are zero where the scale goes.
inline void pack_scale_q3_k(int scale, int b, std::uint8_t packed[12]) {
  const int bits = scale + 32;
  packed[b % 8] = static_cast<std::uint8_t>(packed[b % 8] | (bits & 15) << (b < 8 ? 0 : 4));
  packed[8 + b % 4] = static_cast<std::uint8_t>(packed[8 + b % 4] | bits >> 4 << (2 * (b / 4)));
}

}  // namespace codec
}  // namespace spectralquant::gguf
