#pragma once
#include <cstdint>

#include "spectralquant/format/grid_matrix.h"

namespace spectralquant::format {

/// Rounds each block alone, as llama.cpp does: bit for bit the built-in baseline.
///
/// Shapes   weights: rows × cols floats, row-major; importance: cols floats E[x²] or nullptr
///          (llama.cpp without imatrix).
/// Threads  rows in parallel, same bytes for any n_threads.
/// Source   ggml-quants.c: quantize_row_*_ref without importance, quantize_row_*_impl with.
GridMatrix round_like_llama(const Grid& grid, const float* weights, std::int64_t rows,
                            std::int64_t cols, const float* importance, int n_threads = 0);

/// Columns in a run that this rounding makes zero when none of them has importance: a block, a
/// super-block, or 0 where it never does.
int columns_lost_without_importance(const Grid& grid);

}  // namespace spectralquant::format
