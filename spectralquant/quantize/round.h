#pragma once
#include <cstdint>

#include "spectralquant/quantize/q4k_matrix.h"

namespace spectralquant::quantize {

/// Rounds each block alone, as llama.cpp's quantize_q4_K does: bit for bit the built-in baseline.
///
/// Shapes   weights: rows × cols floats, row-major; importance: cols floats E[x²] or nullptr
///          (llama.cpp without imatrix).
/// Threads  rows in parallel, same bytes for any n_threads.
/// Source   ggml-quants.c: quantize_row_q4_K_ref, quantize_row_q4_K_impl, make_qkx2_quants,
///          make_qkx3_quants, make_qp_quants.
Q4KMatrix round_like_llama(const float* weights, std::int64_t rows, std::int64_t cols,
                           const float* importance, int n_threads = 0);

}  // namespace spectralquant::quantize
