#include "spectralquant/format/formats.h"

namespace spectralquant::format {

const std::vector<const Grid*>& all_grids() {
#define SPECTRALQUANT_GRID(name, ...) &name::kGrid,
  static const std::vector<const Grid*> grids = {SPECTRALQUANT_FORMATS(SPECTRALQUANT_GRID)};
#undef SPECTRALQUANT_GRID
  return grids;
}

const Grid* find_grid(gguf::Type type) {
  for (const Grid* grid : all_grids()) {
    if (grid->type == type) return grid;
  }
  return nullptr;
}

const Grid& grid_of(gguf::Type type) {
  if (const Grid* grid = find_grid(type)) return *grid;
  std::string known;
  for (const Grid* grid : all_grids()) known += (known.empty() ? "" : ", ") + name_of(*grid);
  throw Error(ErrorCode::kBadUsage,
              "matrices cannot be quantized to " + std::string(gguf::traits(type).name), {},
              "choose one of " + known);
}

std::string name_of(const Grid& grid) { return std::string(gguf::traits(grid.type).name); }

}  // namespace spectralquant::format
