#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"

// Formats of models trained with few levels: ternary (TQ), sign only (Q1_0), four levels (Q2_0).

namespace spectralquant::gguf::codec {
namespace {

struct BlockTQ1 {
  /// five values a byte: 32 bytes hold values 0 … 159, value 32 n + i digit n of byte i; 16 more
  /// hold 80 values
  std::uint8_t five[48];
  std::uint8_t four[4];  ///< four values a byte, the last 16
  std::uint16_t d;
};
static_assert(sizeof(BlockTQ1) == 54);

struct BlockTQ2 {
  std::uint8_t qs[64];  ///< laid out as in Q2_K
  std::uint16_t d;
};
static_assert(sizeof(BlockTQ2) == 66);

struct BlockQ1 {
  std::uint16_t d;
  std::uint8_t qs[16];
};  ///< a bit a value
struct BlockQ2 {
  std::uint16_t d;
  std::uint8_t qs[16];
};  ///< two bits a value
static_assert(sizeof(BlockQ1) == 18 && sizeof(BlockQ2) == 18);

/// Digits 0 … n_digits − 1 of `n_bytes` bytes, digit by digit. A byte is the fraction digit₀/3 +
/// digit₁/9 + …, in 256ths.
float* decode_digits(float d, const std::uint8_t* bytes, int n_bytes, int n_digits, float* values) {
  unsigned power = 1;  // of three
  for (int digit = 0; digit < n_digits; ++digit, power *= 3) {
    for (int i = 0; i < n_bytes; ++i) {
      // the digits before this one are above the point and fall away
      const unsigned rest = (bytes[i] * power) & 255;
      *values++ = (static_cast<int>(rest * 3 >> 8) - 1) * d;
    }
  }
  return values;
}

}  // namespace

/// value = d · (digit − 1), digits in base three
void decode_tq1_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockTQ1, 256>(in, n_values, out, [](const BlockTQ1& block, float* values) {
    const float d = half_to_float(block.d);
    values = decode_digits(d, block.five, 32, 5, values);
    values = decode_digits(d, block.five + 32, 16, 5, values);
    decode_digits(d, block.four, 4, 4, values);
  });
}

/// value = d · (q − 1), q of two bits
void decode_tq2_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockTQ2, 256>(in, n_values, out, [](const BlockTQ2& block, float* values) {
    const float d = half_to_float(block.d);
    for (int v = 0; v < 256; ++v)
      values[v] = ((block.qs[v / 128 * 32 + v % 32] >> (v % 128 / 32 * 2) & 3) - 1) * d;
  });
}

/// value = d where the bit is set, −d elsewhere
void decode_q1_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ1, 128>(in, n_values, out, [](const BlockQ1& block, float* values) {
    const float d = half_to_float(block.d);
    for (int v = 0; v < 128; ++v) values[v] = block.qs[v / 8] >> (v % 8) & 1 ? d : -d;
  });
}

/// value = d · (q − 1), q of two bits
void decode_q2_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ2, 64>(in, n_values, out, [](const BlockQ2& block, float* values) {
    const float d = half_to_float(block.d);
    for (int v = 0; v < 64; ++v) values[v] = ((block.qs[v / 4] >> (v % 4 * 2) & 3) - 1) * d;
  });
}

}  // namespace spectralquant::gguf::codec
