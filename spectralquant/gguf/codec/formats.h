#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace spectralquant::gguf::codec {

// The row decoders, one per type. All of them: `in` may be unaligned, n_values is a multiple of the
// type's block, and the float operations are those of ggml's dequantize_row_* in the same order, so
// the bits are the same.

void decode_f32(const std::byte* in, std::uint64_t n_values, float* out);
void decode_f16(const std::byte* in, std::uint64_t n_values, float* out);
void decode_bf16(const std::byte* in, std::uint64_t n_values, float* out);

void decode_q4_0(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q4_1(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q5_0(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q5_1(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q8_0(const std::byte* in, std::uint64_t n_values, float* out);

void decode_q2_k(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q3_k(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q4_k(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q5_k(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q6_k(const std::byte* in, std::uint64_t n_values, float* out);

void decode_iq4_nl(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq4_xs(const std::byte* in, std::uint64_t n_values, float* out);

void decode_iq2_xxs(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq2_xs(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq2_s(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq3_xxs(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq3_s(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq1_s(const std::byte* in, std::uint64_t n_values, float* out);
void decode_iq1_m(const std::byte* in, std::uint64_t n_values, float* out);

void decode_tq1_0(const std::byte* in, std::uint64_t n_values, float* out);
void decode_tq2_0(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q1_0(const std::byte* in, std::uint64_t n_values, float* out);
void decode_q2_0(const std::byte* in, std::uint64_t n_values, float* out);

void decode_mxfp4(const std::byte* in, std::uint64_t n_values, float* out);
void decode_nvfp4(const std::byte* in, std::uint64_t n_values, float* out);

static_assert(std::endian::native == std::endian::little,
              "GGUF files are little-endian and their blocks are read as they stand");

/// Calls decode_block(block, out) for every block of a row. The block is copied first: files
/// promise no alignment.
template <class Block, std::uint64_t kValues, class DecodeBlock>
inline void for_each_block(const std::byte* in, std::uint64_t n_values, float* out,
                           DecodeBlock decode_block) {
  for (std::uint64_t done = 0; done < n_values;
       done += kValues, in += sizeof(Block), out += kValues) {
    Block block;
    std::memcpy(&block, in, sizeof(Block));
    decode_block(block, out);
  }
}

}  // namespace spectralquant::gguf::codec
