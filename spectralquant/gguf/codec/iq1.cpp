#include "spectralquant/gguf/codec/formats.h"
#include "spectralquant/gguf/codec/grid_point.h"
#include "spectralquant/gguf/codec/half.h"

// One bit and a half: each group of eight values is a point of a grid of −1, 0 and 1, all shifted
// by an eighth up or down. Four groups make a block of 32.

namespace spectralquant::gguf::codec {
namespace {

#include "spectralquant/gguf/codec/iq1_grids.inc"

constexpr float kIq1Levels[3] = {-1, 0, 1};
constexpr float kShift = 0.125f;

struct BlockIQ1S {
  std::uint16_t d;
  std::uint8_t points[32];  ///< low eight bits
  /// high three bits of the points, four times; three bits of scale; the top bit set: shifted down
  std::uint16_t high[8];
};
static_assert(sizeof(BlockIQ1S) == 50);

struct BlockIQ1M {
  std::uint8_t points[32];  ///< low eight bits
  /// a half a group: high three bits of the point, the fourth bit set: shifted down
  std::uint8_t high[16];
  /// three bits for each 16 values, four times; the top four bits are a quarter of the fp16 d
  std::uint16_t scales[4];
};
static_assert(sizeof(BlockIQ1M) == 56);

void decode_group(float scale, std::uint16_t point, bool down, float* values) {
  unpack_point<8, 2>(point, kIq1Levels, values);
  const float shift = down ? -kShift : kShift;
  for (int i = 0; i < 8; ++i) values[i] = scale * (values[i] + shift);
}

}  // namespace

/// value = d · (2 scale + 1) · (level ± ⅛)
void decode_iq1_s(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ1S, 256>(in, n_values, out, [](const BlockIQ1S& block, float* values) {
    const float d = half_to_float(block.d);
    for (int g = 0; g < 32; ++g, values += 8) {
      const int high = block.high[g / 4];
      const float scale = d * (2 * (high >> 12 & 7) + 1);
      decode_group(scale, kGridIQ1[block.points[g] | (high >> (3 * (g % 4)) & 7) << 8], high >> 15,
                   values);
    }
  });
}

/// As IQ1_S, a scale for each 16 values and a shift for each eight
void decode_iq1_m(const std::byte* in, std::uint64_t n_values, float* out) {
  for_each_block<BlockIQ1M, 256>(in, n_values, out, [](const BlockIQ1M& block, float* values) {
    int bits = 0;
    for (int i = 0; i < 4; ++i) bits |= block.scales[i] >> 12 << (4 * i);
    const float d = half_to_float(static_cast<std::uint16_t>(bits));
    for (int g = 0; g < 32; ++g, values += 8) {
      const int high = block.high[g / 2] >> (g % 2 * 4);
      const float scale = d * (2 * (block.scales[g / 8] >> (g % 8 / 2 * 3) & 7) + 1);
      decode_group(scale, kGridIQ1[block.points[g] | (high & 7) << 8], high & 8, values);
    }
  });
}

}  // namespace spectralquant::gguf::codec
