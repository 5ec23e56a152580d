#pragma once
#include <cstdint>
#include <vector>

namespace spectralquant::quantize {

/// u, upper triangular, with inverse(a) = uᵀ u: row i of u says how the error of column i is best
/// made good by the columns behind it.
///
/// Shapes   a: [n × n], symmetric, n a multiple of 64; only read. Returns [n × n], or nothing when
///          a is not (numerically) positive definite. Both tiled as in row_solver.h.
/// Threads  blocks in parallel, in a fixed order of summation: the same bits for any n_threads,
///          whatever BLAS is installed.
std::vector<float> inverse_factor(const float* a, std::int64_t n, int n_threads);

}  // namespace spectralquant::quantize
