#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/format/grid.h"
#include "spectralquant/gguf/codec/iq4_blocks.h"

/// The formats, one a line: type, block, super-block, codes, scales, mins, general.file_type, and
/// the levels where they are not evenly spaced. Each has a file of its own here; solver, command
/// line and tests go over this list.
#define SPECTRALQUANT_FORMATS(LINE)                                       \
  LINE(Q4_K, 32, 256, {0, 15}, {0, 63}, {0, 63}, 15)                      \
  LINE(Q5_K, 32, 256, {0, 31}, {0, 63}, {0, 63}, 17)                      \
  LINE(Q6_K, 16, 256, {-32, 31}, {-128, 127}, {0, 0}, 18)                 \
  LINE(Q2_K, 16, 256, {0, 3}, {0, 15}, {0, 15}, 10)                       \
  LINE(Q3_K, 16, 256, {-4, 3}, {-32, 31}, {0, 0}, 12)                     \
  LINE(IQ4_XS, 32, 256, {0, 15}, {-32, 31}, {0, 0}, 30, gguf::kIq4Levels) \
  LINE(IQ4_NL, 32, 32, {0, 15}, {1, 1}, {0, 0}, 25, gguf::kIq4Levels)     \
  LINE(Q4_0, 32, 32, {-8, 7}, {1, 1}, {0, 0}, 2)                          \
  LINE(Q5_0, 32, 32, {-16, 15}, {1, 1}, {0, 0}, 8)                        \
  LINE(Q8_0, 32, 32, {-127, 127}, {1, 1}, {0, 0}, 7)

namespace spectralquant::format {

/// The numbers of one super-block, one field a number. A format with fewer blocks, or without mins,
/// leaves the rest alone.
struct SuperBlock {
  std::uint16_t d = 0, dmin = 0;  ///< fp16 bits
  std::int8_t scales[16] = {}, mins[16] = {};
  std::int8_t codes[256] = {};
};

// struct NAME for each line: the format at compile time.
//   kGrid, kBlock, …   the line
//   unpack(bytes)      a super-block as it stands in a file; bytes need no alignment
//   pack(values, out)  the way back; fields must be in range
//   round(x, w, m)     llama.cpp's own rounding of one super-block, bit for bit; w: importance of
//                      each column, or nullptr; m: mean x² of the whole row, which formats without
//                      scales weigh importance by
#define SPECTRALQUANT_DECLARE_FORMAT(name, ...)                                          \
  struct name {                                                                          \
    static constexpr Grid kGrid{gguf::Type::name, __VA_ARGS__};                          \
    static constexpr int kBlock = kGrid.block;                                           \
    static constexpr int kSuper = kGrid.super_block;                                     \
    static constexpr int kBlocks = kSuper / kBlock;                                      \
    static constexpr int kLowestCode = kGrid.code.lowest;                                \
    static constexpr int kHighestCode = kGrid.code.highest;                              \
    static constexpr int kLowestScale = kGrid.scale.lowest;                              \
    static constexpr int kHighestScale = kGrid.scale.highest;                            \
    static SuperBlock unpack(const std::byte* bytes);                                    \
    static void pack(const SuperBlock& values, std::byte* out);                          \
    static SuperBlock round(const float* x, const float* importance, float mean_square); \
  };
SPECTRALQUANT_FORMATS(SPECTRALQUANT_DECLARE_FORMAT)
#undef SPECTRALQUANT_DECLARE_FORMAT

/// Grids of all formats, in the order of the list.
const std::vector<const Grid*>& all_grids();

/// The grid of a type; nullptr if it is none of the formats.
const Grid* find_grid(gguf::Type type);

/// Errors   Error(kBadUsage): none of the formats; names those that are.
const Grid& grid_of(gguf::Type type);

/// "Q4_K"
std::string name_of(const Grid& grid);

/// visit(NAME{}) for the format of a grid: from a number to a type, once for each job.
template <class Visit>
decltype(auto) with_format(const Grid& grid, Visit&& visit) {
  switch (grid.type) {
#define SPECTRALQUANT_CASE(name, ...) \
  case gguf::Type::name:              \
    return visit(name{});
    SPECTRALQUANT_FORMATS(SPECTRALQUANT_CASE)
#undef SPECTRALQUANT_CASE
    default:
      throw Error(ErrorCode::kFailed, "a grid of no format", name_of(grid),
                  "please report this as a bug");
  }
}

}  // namespace spectralquant::format
