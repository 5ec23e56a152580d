#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/codec/legacy_blocks.h"

// The formats of 32 values that came before the K-quants.

namespace spectralquant::gguf::codec {
namespace {

struct BlockQ4_1 {
  std::uint16_t d, m;
  std::uint8_t qs[16];
};
struct BlockQ5_1 {
  std::uint16_t d, m;
  std::uint8_t qh[4], qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_1) == 24);

constexpr std::uint64_t kValues = 32;

/// Value i of 0..31 without its fifth bit.
int low_bits(const std::uint8_t qs[16], int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }

int fifth_bit(const std::uint8_t qh[4], int i) { return (qh[i / 8] >> (i % 8) & 1) << 4; }

}  // namespace

/// value = d · (q − 8)
void decode_q4_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ4_0, kValues>(in, n_values, out, [](const BlockQ4_0& block, float* values) {
    const float d = half_to_float(block.d);
    for (int i = 0; i < 16; ++i) values[i] = (low_bits(block.qs, i) - 8) * d;
    for (int i = 16; i < 32; ++i) values[i] = (low_bits(block.qs, i) - 8) * d;
  });
}

/// value = d · q + m
void decode_q4_1(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ4_1, kValues>(in, n_values, out, [](const BlockQ4_1& block, float* values) {
    const float d = half_to_float(block.d), m = half_to_float(block.m);
    for (int i = 0; i < 16; ++i) values[i] = low_bits(block.qs, i) * d + m;
    for (int i = 16; i < 32; ++i) values[i] = low_bits(block.qs, i) * d + m;
  });
}

/// value = d · (q − 16), q of five bits
void decode_q5_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ5_0, kValues>(in, n_values, out, [](const BlockQ5_0& block, float* values) {
    const float d = half_to_float(block.d);
    for (int i = 0; i < 32; ++i)
      values[i] = ((low_bits(block.qs, i) | fifth_bit(block.qh, i)) - 16) * d;
  });
}

/// value = d · q + m, q of five bits
void decode_q5_1(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ5_1, kValues>(in, n_values, out, [](const BlockQ5_1& block, float* values) {
    const float d = half_to_float(block.d), m = half_to_float(block.m);
    for (int i = 0; i < 32; ++i)
      values[i] = (low_bits(block.qs, i) | fifth_bit(block.qh, i)) * d + m;
  });
}

/// value = d · q, q of eight bits with sign
void decode_q8_0(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockQ8_0, kValues>(in, n_values, out, [](const BlockQ8_0& block, float* values) {
    const float d = half_to_float(block.d);
    for (int i = 0; i < 32; ++i) values[i] = block.qs[i] * d;
  });
}

}  // namespace spectralquant::gguf::codec
