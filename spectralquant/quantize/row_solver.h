#pragma once
#include <cstdint>

/// The hot loops of the solver: plain pointers, no torch, one version per SIMD level.
///
/// Every level gives the same bits: all arithmetic is elementwise or over fixed lanes, and never
/// fused. A row r is a one-sided problem: minimise e Hr eᵀ + 2 <m0, e> over the cells of the row,
/// Hr = h + weight · c, whose gradient (by halves) m is kept up to date while cells change.
namespace spectralquant::quantize {

inline constexpr int kBlock = 32;       ///< columns that share a scale and a min
inline constexpr int kSuper = 256;      ///< columns that share d and dmin
inline constexpr int kBundle = 8;       ///< most rows that one call works on
inline constexpr int kCandidates = 16;  ///< (scale, min) pairs tried side by side
inline constexpr int kTile = 64;        ///< columns of a tile

/// Matrices of the kernels are tiled: columns 64 t … 64 t + 63 of all rows lie together, row after
/// row. The rows of one block are then a run of memory, and no two of them fall on the same lines
/// of a cache when the width is a power of two.
inline std::int64_t tiled_index(std::int64_t row, std::int64_t column, std::int64_t n_rows) {
  return (column / kTile * n_rows + row) * kTile + column % kTile;
}

/// A 32 × 32 block on the diagonal of Hr, factored: inverse(h) = uᵀ u, u upper.
struct BlockFactors {
  alignas(64) float h[kBlock * kBlock];
  float u[kBlock * kBlock];
  float u_transposed[kBlock * kBlock];
  float u_inverse[kBlock];  ///< 1 / u[i][i]
  float h_inverse[kBlock];  ///< 1 / h[i][i]
};

/// One row being solved. All arrays [cols] but d, dmin [cols / 256] and scale, min [cols / 32].
struct RowWork {
  float* m = nullptr;      ///< half the gradient; for the start: the row of the target, used up
  float* value = nullptr;  ///< decoded values
  float* code = nullptr;   ///< 0..15, as float
  std::uint8_t* scale = nullptr;
  std::uint8_t* min = nullptr;
  float* d = nullptr;  ///< exact fp16 numbers
  float* dmin = nullptr;
  /// [cols / 32]: of Hr; for the start: the diagonal blocks of the start's u
  const BlockFactors* blocks = nullptr;
  float weight = 0;  ///< of c
  double gain = 0;   ///< out: change of the objective by improve (negative)
};

struct RowSettings {
  int live_scale_radius = 3;
  int sweeps = 2;
  bool scale_search = true;
  bool super_scale_search = true;
};

/// The kernels of one SIMD level. u, h, c are tiled; cols is a multiple of 256.
struct RowKernels {
  /// Error feedback with live scales: row.m (target) is used up, codes, scales, mins, values are
  /// written. u: [cols × cols] upper with inverse(H) = uᵀ u, or nullptr when H is diagonal.
  void (*start)(RowWork* rows, int n_rows, std::int64_t cols, const float* u,
                const RowSettings& settings);
  /// Coordinate-descent sweeps over up to kBundle rows. h, c: [cols × cols], nullptr when diagonal
  /// or absent.
  void (*improve)(RowWork* rows, int n_rows, std::int64_t cols, const float* h, const float* c,
                  const RowSettings& settings);
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
const RowKernels* row_kernels(SimdLevel level);
const RowKernels& row_kernels();

/// Factors the diagonal block of h + weight · c that begins at column `first`. h, c: [cols × cols],
/// tiled; c may be nullptr. A block that is singular is factored as if slightly damped.
void factor_block(const float* h, const float* c, float weight, std::int64_t cols,
                  std::int64_t first, BlockFactors& out);
/// The same for a diagonal h.
void factor_diagonal_block(const float* diagonal, BlockFactors& out);
/// Takes the diagonal block of an upper factor u, tiled (only u and u_inverse are filled);
/// diagonal: u is [cols].
void take_block(const float* u, bool diagonal, std::int64_t cols, std::int64_t first,
                BlockFactors& out);

/// What the row decodes to, as the decoder computes it.
void decode_row(RowWork& row, std::int64_t cols);

}  // namespace spectralquant::quantize
