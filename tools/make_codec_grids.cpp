// Makes the grids of the IQ formats, spectralquant/gguf/codec/iq{1,2,3}_grids.inc. Run it only if a
// format gets a new grid.
//
// A grid is a table of points (groups of 8 or 4 small numbers) that belongs to the format as much
// as its layout does. It is measured here: blocks that name each point in turn, with scale 1 and no
// signs, are decoded by ggml and read off.
//
// Against any llama.cpp install with ggml headers:
//   g++ -std=c++20 -O2 tools/make_codec_grids.cpp -I PREFIX/include -L PREFIX/lib -lggml-base
//   ./a.out spectralquant/gguf/codec
#include <ggml.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Grid {
  const char* name;
  ggml_type type;
  int n_points, n_values;  // values a point
  // what the decoder makes of level l with scale 1: unit * l + offset
  float unit, offset;
  std::vector<int> levels;                      // a packed value is an index into these
  std::function<void(Bytes&, int)> name_point;  // makes the first group of a block point number p
};

/// Points as numbers: value i is the index of its level, bits_per_value bits from bit i *
/// bits_per_value on.
std::vector<unsigned> measure(const Grid& grid) {
  const ggml_type_traits* traits = ggml_get_type_traits(grid.type);
  const int bits = grid.levels.size() <= 4 ? 2 : 3;
  std::vector<unsigned> points;
  for (int p = 0; p < grid.n_points; ++p) {
    Bytes block(traits->type_size, 0);
    block[1] = 0x3c;  // d = 1 in fp16
    grid.name_point(block, p);
    std::vector<float> values(traits->blck_size);
    traits->to_float(block.data(), values.data(), traits->blck_size);
    unsigned point = 0;
    for (int i = 0; i < grid.n_values; ++i) {
      unsigned level = 0;
      while (level < grid.levels.size() &&
             values[i] != grid.unit * grid.levels[level] + grid.offset)
        ++level;
      if (level == grid.levels.size()) {
        std::fprintf(stderr, "%s: point %d has a value %g that is no level\n", grid.name, p,
                     values[i]);
        std::exit(1);
      }
      point |= level << (bits * i);
    }
    points.push_back(point);
  }
  return points;
}

void write(const std::string& path, const std::vector<Grid>& grids) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (!file) std::fprintf(stderr, "cannot write %s\n", path.c_str()), std::exit(1);
  std::fprintf(file,
               "// Made by tools/make_codec_grids.cpp; do not edit. A number is a point: %d values "
               "of %d bits, the first in the lowest bits.\n",
               grids[0].n_values, grids[0].levels.size() <= 4 ? 2 : 3);
  for (const Grid& grid : grids) {
    std::fprintf(file, "constexpr std::uint16_t %s[%d] = {", grid.name, grid.n_points);
    const auto points = measure(grid);
    for (std::size_t p = 0; p < points.size(); ++p)
      std::fprintf(file, "%s%u,", p % 24 == 0 ? "\n  " : "", points[p]);
    std::fprintf(file, "\n};\n");
  }
  std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  const std::string folder = argv[1];
  const auto byte = [](int value) { return static_cast<std::uint8_t>(value); };
  const auto index_at_2 = [&](Bytes& block, int p) { block[2] = byte(p), block[3] = byte(p >> 8); };
  const std::vector<int> three = {8, 25, 43}, around_zero = {-1, 0, 1},
                         by_eight = {4, 12, 20, 28, 36, 44, 52, 62},
                         odd = {1, 3, 5, 7, 9, 11, 13, 15};
  write(folder + "/iq2_grids.inc",
        {{"kGridIQ2XXS", GGML_TYPE_IQ2_XXS, 256, 8, 0.125f, 0, three, index_at_2},
         {"kGridIQ2XS", GGML_TYPE_IQ2_XS, 512, 8, 0.125f, 0, three, index_at_2},
         {"kGridIQ2S", GGML_TYPE_IQ2_S, 1024, 8, 0.125f, 0, three,
          [&](Bytes& block, int p) { block[2] = byte(p), block[66] = byte(p >> 8); }}});
  write(folder + "/iq3_grids.inc",
        {{"kGridIQ3XXS", GGML_TYPE_IQ3_XXS, 256, 4, 0.25f, 0, by_eight, index_at_2},
         {"kGridIQ3S", GGML_TYPE_IQ3_S, 512, 4, 1.f, 0, odd,
          [&](Bytes& block, int p) { block[2] = byte(p), block[66] = byte(p >> 8); }}});
  write(folder + "/iq1_grids.inc",
        {{"kGridIQ1", GGML_TYPE_IQ1_S, 2048, 8, 1.f, 0.125f, around_zero,
          [&](Bytes& block, int p) { block[2] = byte(p), block[34] = byte(p >> 8); }}});
  return 0;
}
