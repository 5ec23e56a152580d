#pragma once
#include <cstdint>

#include "spectralquant/quantize/shape.h"

/// The hot loops of the solver: plain pointers, no torch, one version per shape and SIMD level.
///
/// Every level gives the same bits: all arithmetic is elementwise or over fixed lanes, and never
/// fused. A row r is a one-sided problem: minimise e Hr eᵀ + 2 <m0, e> over the cells of the row,
/// Hr = h + weight · c, whose gradient (by halves) m is kept up to date while cells change.
namespace spectralquant::quantize {

inline constexpr int kBundle = 8;  ///< most rows that one call works on
inline constexpr int kTile = 64;   ///< columns of a tile

/// Matrices of the kernels are tiled: columns 64 t … 64 t + 63 of all rows lie together, row after
/// row. The rows of one block are then a run of memory, and no two of them fall on the same lines
/// of a cache when the width is a power of two.
inline std::int64_t tiled_index(std::int64_t row, std::int64_t column, std::int64_t n_rows) {
  return (column / kTile * n_rows + row) * kTile + column % kTile;
}

/// A block of shape F on the diagonal of Hr, factored: inverse(h) = uᵀ u, u upper.
template <class F>
struct BlockFactors {
  static constexpr int kWidth = F::kBlock;
  alignas(64) float h[kWidth * kWidth];
  float u[kWidth * kWidth];
  float u_transposed[kWidth * kWidth];
  float u_inverse[kWidth];  ///< 1 / u[i][i]
  float h_inverse[kWidth];  ///< 1 / h[i][i]
};

/// One row being solved, in a format of shape F. All arrays [cols] but d, dmin [cols / super-block]
/// and scale, min [cols / block]; min and dmin are zeros in a format without.
template <class F>
struct RowWork {
  float* m = nullptr;      ///< half the gradient; for the start: the row of the target, used up
  float* value = nullptr;  ///< decoded values
  float* code = nullptr;   ///< as float: the code itself, or its level
  std::int8_t* scale = nullptr;
  std::int8_t* min = nullptr;
  float* d = nullptr;  ///< exact fp16 numbers
  float* dmin = nullptr;
  /// [cols / block]: of Hr; for the start: the diagonal blocks of the start's u
  const BlockFactors<F>* blocks = nullptr;
  float weight = 0;  ///< of c
  double gain = 0;   ///< out: change of the objective by improve (negative)
};

struct RowSettings {
  int live_scale_radius = 3;
  int sweeps = 2;
  bool scale_search = true;
  bool super_scale_search = true;
};

/// The kernels of one shape and SIMD level. u, h, c are tiled; cols is a multiple of the
/// super-block and of kTile.
template <class F>
struct RowKernels {
  /// Error feedback with live scales: row.m (target) is used up, codes, scales, mins, values are
  /// written. u: [cols × cols] upper with inverse(H) = uᵀ u, or nullptr when H is diagonal.
  void (*start)(RowWork<F>* rows, int n_rows, std::int64_t cols, const float* u,
                const Numbers& numbers, const RowSettings& settings);
  /// Coordinate-descent sweeps over up to kBundle rows. h, c: [cols × cols], nullptr when diagonal
  /// or absent.
  void (*improve)(RowWork<F>* rows, int n_rows, std::int64_t cols, const float* h, const float* c,
                  const Numbers& numbers, const RowSettings& settings);
};

/// Products with tiled matrices at one SIMD level.
struct Products {
  /// out[r][j] = Σ_i a[r][i] · x[i][j] for j in [first, last), multiples of 16; i ascending.
  void (*multiply)(const float* a, std::int64_t lda, int n_rows, std::int64_t depth, const float* x,
                   std::int64_t ldx, std::int64_t first, std::int64_t last, float* out,
                   std::int64_t ldo);
  /// The same in double; x float.
  void (*multiply_exact)(const double* a, std::int64_t lda, int n_rows, std::int64_t depth,
                         const float* x, std::int64_t ldx, std::int64_t first, std::int64_t last,
                         double* out, std::int64_t ldo);
  /// The same, x double.
  void (*multiply_double)(const double* a, std::int64_t lda, int n_rows, std::int64_t depth,
                          const double* x, std::int64_t ldx, std::int64_t first, std::int64_t last,
                          double* out, std::int64_t ldo);
};

enum class SimdLevel { kBaseline, kAvx2, kAvx512 };

/// The best level this processor has.
SimdLevel simd_level();
/// nullptr when the processor (or the build) lacks the level.
template <class F>
const RowKernels<F>* row_kernels(SimdLevel level);
const Products* products(SimdLevel level);
/// Those of the best level.
template <class F>
const RowKernels<F>& row_kernels() {
  return *row_kernels<F>(simd_level());
}
inline const Products& products() { return *products(simd_level()); }

/// Factors the diagonal block of h + weight · c that begins at column `first`. h, c: [cols × cols],
/// tiled; c may be nullptr. A block that is singular is factored as if slightly damped.
template <class F>
void factor_block(const float* h, const float* c, float weight, std::int64_t cols,
                  std::int64_t first, BlockFactors<F>& out);
/// The same for a diagonal h.
template <class F>
void factor_diagonal_block(const float* diagonal, BlockFactors<F>& out);
/// Takes the diagonal block of an upper factor u, tiled (only u and u_inverse are filled);
/// diagonal: u is [cols].
template <class F>
void take_block(const float* u, bool diagonal, std::int64_t cols, std::int64_t first,
                BlockFactors<F>& out);

/// What the row decodes to, as the decoder computes it.
template <class F>
void decode_row(RowWork<F>& row, std::int64_t cols);

}  // namespace spectralquant::quantize
