#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/grid_point.h"
#include "spectralquant/gguf/codec/half.h"

// Three bits and a little: each group of four values is a point of a grid, with signs. Eight groups
// make a block of 32.

namespace spectralquant::gguf::codec {
namespace {

#include "spectralquant/gguf/codec/iq3_grids.inc"

constexpr float kLevelsXXS[8] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr float kLevelsS[8] = {1, 3, 5, 7, 9, 11, 13, 15};

struct BlockIQ3XXS {
  std::uint16_t d;
  std::uint8_t points[64];
  /// seven bits of signs for two groups, four times, then four bits of scale
  std::uint32_t signs_and_scale[8];
} __attribute__((packed));
static_assert(sizeof(BlockIQ3XXS) == 98);

struct BlockIQ3S {
  std::uint16_t d;
  std::uint8_t points[64];      ///< low eight bits
  std::uint8_t points_high[8];  ///< ninth bit of group g of a block at bit g
  std::uint8_t signs[32];       ///< two groups a byte
  std::uint8_t scales[4];       ///< four bits a block
};
static_assert(sizeof(BlockIQ3S) == 110);

/// Two groups, which share a byte of signs.
void decode_pair(float scale, const float levels[8], std::uint16_t first, std::uint16_t second,
                 std::uint8_t signs, float* values) {
  float level[8];
  unpack_point<4, 3>(first, levels, level);
  unpack_point<4, 3>(second, levels, level + 4);
  scale_with_signs(scale, signs, 8, level, values);
}

}  // namespace

/// value = d · (scale + ½) / 2 · ±level
void decode_iq3_xxs(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ3XXS, 256>(in, n_values, out, [](const BlockIQ3XXS& block, float* values) {
    const float d = half_to_float(block.d);
    for (int pair = 0; pair < 32; ++pair, values += 8) {
      const std::uint32_t packed = block.signs_and_scale[pair / 4];
      const float scale = d * (0.5f + (packed >> 28)) * 0.5f;
      const std::uint8_t* points = block.points + 2 * pair;
      decode_pair(scale, kLevelsXXS, kGridIQ3XXS[points[0]], kGridIQ3XXS[points[1]],
                  even_signs(packed >> (7 * (pair % 4)) & 127), values);
    }
  });
}

/// value = d · (2 scale + 1) · ±level
void decode_iq3_s(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ3S, 256>(in, n_values, out, [](const BlockIQ3S& block, float* values) {
    const float d = half_to_float(block.d);
    for (int pair = 0; pair < 32; ++pair, values += 8) {
      const int b = pair / 4, high = block.points_high[b] >> (2 * (pair % 4));
      const float scale = d * (1 + 2 * (block.scales[b / 2] >> (b % 2 * 4) & 15));
      const std::uint8_t* points = block.points + 2 * pair;
      decode_pair(scale, kLevelsS, kGridIQ3S[points[0] | (high & 1) << 8],
                  kGridIQ3S[points[1] | (high & 2) << 7], block.signs[pair], values);
    }
  });
}

}  // namespace spectralquant::gguf::codec
