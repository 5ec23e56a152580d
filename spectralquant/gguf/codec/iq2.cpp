#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/grid_point.h"
#include "spectralquant/gguf/codec/half.h"

// Two bits and a little: each group of eight values is a point of a grid, with signs. Four groups
// make a block of 32.

namespace spectralquant::gguf::codec {
namespace {

#include "spectralquant/gguf/codec/iq2_grids.inc"

constexpr float kIq2Levels[3] = {8, 25, 43};

struct BlockIQ2XXS {
  std::uint16_t d;
  struct {
    std::uint8_t points[4];
    std::uint32_t signs_and_scale;  ///< seven bits of signs a group, then four bits of scale
  } __attribute__((packed)) blocks[8];
} __attribute__((packed));
static_assert(sizeof(BlockIQ2XXS) == 66);

struct BlockIQ2XS {
  std::uint16_t d;
  std::uint16_t groups[32];  ///< nine bits of point, seven bits of signs
  std::uint8_t scales[8];    ///< two groups of a block in the low half, two in the high half
};
static_assert(sizeof(BlockIQ2XS) == 74);

struct BlockIQ2S {
  std::uint16_t d;
  std::uint8_t points[32];  ///< low eight bits
  std::uint8_t signs[32];
  std::uint8_t points_high[8];  ///< high two bits of group g of a block at bit 2 g
  std::uint8_t scales[8];       ///< as in IQ2_XS
};
static_assert(sizeof(BlockIQ2S) == 82);

float block_scale(float d, std::uint32_t scale) { return d * (0.5f + scale) * 0.25f; }

void decode_group(float scale, std::uint16_t point, std::uint8_t signs, float* values) {
  float level[8];
  unpack_point<8, 2>(point, kIq2Levels, level);
  scale_with_signs(scale, signs, 8, level, values);
}

}  // namespace

/// value = d · (scale + ½) / 4 · ±level
void decode_iq2_xxs(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ2XXS, 256>(in, n_values, out, [](const BlockIQ2XXS& block, float* values) {
    const float d = half_to_float(block.d);
    for (const auto& part : block.blocks) {
      const float scale = block_scale(d, part.signs_and_scale >> 28);
      for (int g = 0; g < 4; ++g, values += 8)
        decode_group(scale, kGridIQ2XXS[part.points[g]],
                     even_signs(part.signs_and_scale >> (7 * g) & 127), values);
    }
  });
}

/// As IQ2_XXS, a scale for each 16 values
void decode_iq2_xs(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ2XS, 256>(in, n_values, out, [](const BlockIQ2XS& block, float* values) {
    const float d = half_to_float(block.d);
    for (int g = 0; g < 32; ++g, values += 8) {
      const float scale = block_scale(d, block.scales[g / 4] >> (g % 4 / 2 * 4) & 15);
      decode_group(scale, kGridIQ2XS[block.groups[g] & 511], even_signs(block.groups[g] >> 9),
                   values);
    }
  });
}

/// As IQ2_XS, a larger grid, all signs stored
void decode_iq2_s(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ2S, 256>(in, n_values, out, [](const BlockIQ2S& block, float* values) {
    const float d = half_to_float(block.d);
    for (int g = 0; g < 32; ++g, values += 8) {
      const float scale = block_scale(d, block.scales[g / 4] >> (g % 4 / 2 * 4) & 15);
      const int high = block.points_high[g / 4] >> (2 * (g % 4)) & 3;
      decode_group(scale, kGridIQ2S[block.points[g] | high << 8], block.signs[g], values);
    }
  });
}

}  // namespace spectralquant::gguf::codec
