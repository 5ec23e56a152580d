#include "spectralquant/quantize/inverse_factor.h"

#include <algorithm>
#include <cmath>

#include "spectralquant/core/parallel.h"
#include "spectralquant/quantize/row_solver.h"

// With J the reversal of all indices and J a J = l lᵀ (Cholesky), inverse(a) = uᵀ u for u = J l⁻¹
// J.

namespace spectralquant::quantize {
namespace {

/// relative to the diagonal; below it the factor would be noise
constexpr double kSmallestPivot = 1e-10;

/// A small lower-triangular tile, and its inverse.
struct Tile {
  double inverse[kTile * kTile];  ///< of l, lower triangular
};

/// Cholesky of the n × n tile at `a` (row stride lda), in place; false when a pivot fails.
bool factor_tile(double* a, std::int64_t lda, std::int64_t n, const double* diagonal) {
  for (std::int64_t j = 0; j < n; ++j) {
    double pivot = a[j * lda + j];
    for (std::int64_t k = 0; k < j; ++k) pivot -= a[j * lda + k] * a[j * lda + k];
    if (!(pivot > kSmallestPivot * diagonal[j])) return false;
    const double root = std::sqrt(pivot);
    a[j * lda + j] = root;
    for (std::int64_t i = j + 1; i < n; ++i) {
      double sum = a[i * lda + j];
      for (std::int64_t k = 0; k < j; ++k) sum -= a[i * lda + k] * a[j * lda + k];
      a[i * lda + j] = sum / root;
    }
  }
  return true;
}

void invert_tile(const double* l, std::int64_t lda, Tile& out) {
  std::fill_n(out.inverse, kTile * kTile, 0.);
  for (std::int64_t i = 0; i < kTile; ++i) {
    double* row = out.inverse + i * kTile;
    for (std::int64_t k = 0; k < i; ++k) {
      const double factor = l[i * lda + k];
      for (std::int64_t j = 0; j <= k; ++j) row[j] -= factor * out.inverse[k * kTile + j];
    }
    const double inverse = 1 / l[i * lda + i];
    for (std::int64_t j = 0; j < i; ++j) row[j] *= inverse;
    row[i] = inverse;
  }
}

}  // namespace

std::vector<float> inverse_factor(const float* a, std::int64_t n, int n_threads) {
  const Products& kernels = products();
  const std::int64_t tiles = n / kTile;
  std::vector<double> l(static_cast<std::size_t>(n * n)), diagonal(n);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) l[i * n + j] = a[tiled_index(n - 1 - i, n - 1 - j, n)];
    diagonal[i] = l[i * n + i];
  }
  std::vector<Tile> inverse(tiles);
  for (std::int64_t k = 0; k < tiles; ++k) {
    double* column = l.data() + k * kTile;  // tile column k
    std::vector<double> above(static_cast<std::size_t>(k * kTile * kTile));
    for (std::int64_t p = 0; p < k * kTile; ++p) {
      for (std::int64_t j = 0; j < kTile; ++j) above[p * kTile + j] = l[(k * kTile + j) * n + p];
    }
    auto update = [&](std::int64_t i) {  // tile (i, k) -= Σ_p l(i, p) l(k, p)ᵀ
      double product[kTile * kTile], *tile = column + i * kTile * n;
      kernels.multiply_double(l.data() + i * kTile * n, n, kTile, k * kTile, above.data(), kTile, 0,
                              kTile, product, kTile);
      for (std::int64_t r = 0; r < kTile; ++r) {
        for (std::int64_t j = 0; j < kTile; ++j) tile[r * n + j] -= product[r * kTile + j];
      }
    };
    update(k);
    if (!factor_tile(column + k * kTile * n, n, kTile, diagonal.data() + k * kTile)) return {};
    invert_tile(column + k * kTile * n, n, inverse[k]);
    double transposed[kTile * kTile];
    for (std::int64_t i = 0; i < kTile; ++i) {
      for (std::int64_t j = 0; j < kTile; ++j)
        transposed[j * kTile + i] = inverse[k].inverse[i * kTile + j];
    }
    parallel_for(static_cast<std::size_t>(tiles - k - 1), n_threads, [&](std::size_t item) {
      const std::int64_t i = k + 1 + static_cast<std::int64_t>(item);
      update(i);
      double product[kTile * kTile], *tile = column + i * kTile * n;
      kernels.multiply_double(tile, n, kTile, kTile, transposed, kTile, 0, kTile, product, kTile);
      for (std::int64_t r = 0; r < kTile; ++r)
        std::copy_n(product + r * kTile, kTile, tile + r * n);
    });
  }
  // l⁻¹ in place, one tile row after the other: row i needs its own l and the finished rows above
  // it.
  for (std::int64_t i = 0; i < tiles; ++i) {
    double* row = l.data() + i * kTile * n;
    std::vector<double> finished(static_cast<std::size_t>(kTile * i * kTile));
    parallel_for(static_cast<std::size_t>(i), n_threads, [&](std::size_t item) {
      const std::int64_t j = static_cast<std::int64_t>(item) * kTile;
      double product[kTile * kTile];
      kernels.multiply_double(row + j, n, kTile, i * kTile - j, l.data() + j * n + j, n, 0, kTile,
                              product, kTile);
      for (double& x : product) x = -x;
      kernels.multiply_double(inverse[i].inverse, kTile, kTile, kTile, product, kTile, 0, kTile,
                              finished.data() + j, i * kTile);
    });
    for (std::int64_t r = 0; r < kTile; ++r) {
      std::copy_n(finished.data() + r * i * kTile, i * kTile, row + r * n);
      std::copy_n(inverse[i].inverse + r * kTile, kTile, row + r * n + i * kTile);
    }
  }
  std::vector<float> u(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j)
      u[tiled_index(i, j, n)] = static_cast<float>(l[(n - 1 - i) * n + (n - 1 - j)]);
  }
  return u;
}

}  // namespace spectralquant::quantize
