#pragma once
#include <cstdint>

#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {

/// The problem with columns behind it, up to whole tiles of the kernels, that no input reaches and
/// whose target is zero. Formats of 32 columns need it.
///
/// Errors   those of Quadratic, where columns are added.
Problem to_whole_tiles(const Problem& problem);

/// The first columns of a matrix, or the matrix with columns of zeros behind it.
format::GridMatrix with_columns(const format::GridMatrix& matrix, std::int64_t cols);

}  // namespace spectralquant::quantize
