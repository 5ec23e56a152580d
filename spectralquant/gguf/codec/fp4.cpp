#include <bit>

#include "spectralquant/gguf/codec/formats.h"

// Four-bit floats (E2M1) under a scale of eight bits.

namespace spectralquant::gguf::codec {
namespace {

/// Twice the values of E2M1, so that they are whole; the scales below are halved for it.
constexpr std::int8_t kDoubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct BlockMXFP4 {
  std::uint8_t e;       ///< E8M0
  std::uint8_t qs[16];  ///< values 0..15 in the low halves, 16..31 in the high halves
};
static_assert(sizeof(BlockMXFP4) == 17);

struct BlockNVFP4 {
  std::uint8_t scales[4];  ///< E4M3 without sign, for 16 values each
  std::uint8_t qs[4][8];   ///< 16 values each: 0..7 in the low halves, 8..15 in the high halves
};
static_assert(sizeof(BlockNVFP4) == 36);

/// Half of 2^(e − 127). The lowest two are subnormal floats.
float half_of_e8m0(std::uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1u) << 23);
}

/// Half of an E4M3 number, exponent bias 7. Its NaN of positive sign, 0x7f, counts as zero in ggml;
/// the top bit is ignored.
float half_of_e4m3(std::uint8_t bits) {
  if (bits == 0x7f) return 0;
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  // 2^(exponent − 11)
  return exponent == 0 ? mantissa * 0x1p-10f
                       : (8 + mantissa) * std::bit_cast<float>((exponent + 116u) << 23);
}

void decode_halves(float scale, const std::uint8_t* qs, int n_bytes, float* values) {
  for (int i = 0; i < n_bytes; ++i) values[i] = kDoubled[qs[i] & 15] * scale;
  for (int i = 0; i < n_bytes; ++i) values[n_bytes + i] = kDoubled[qs[i] >> 4] * scale;
}

}  // namespace

/// value = 2^(e − 127) · E2M1
void decode_mxfp4(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockMXFP4, 32>(in, n_values, out, [](const BlockMXFP4& block, float* values) {
    decode_halves(half_of_e8m0(block.e), block.qs, 16, values);
  });
}

/// value = scale · E2M1
void decode_nvfp4(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockNVFP4, 64>(in, n_values, out, [](const BlockNVFP4& block, float* values) {
    for (int b = 0; b < 4; ++b)
      decode_halves(half_of_e4m3(block.scales[b]), block.qs[b], 8, values + 16 * b);
  });
}

}  // namespace spectralquant::gguf::codec
