#include "spectralquant/quantize/row_solver.h"

#include <cmath>
#include <cstring>

#include "spectralquant/gguf/codec/half.h"

#if defined(__GNUC__)
#define SQ_INLINE inline __attribute__((always_inline))
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors never cross a function that is not inlined
#endif
#else
#error "the row solver needs GCC or Clang vector types"
#endif

namespace spectralquant::quantize {
namespace {

/// Steps away from a (scale, min) pair, one a lane.
struct Offsets {
  float scale[kCandidates], min[kCandidates];
};

// The pair, its eight neighbours, and the nearest beyond them: 16 fill the lanes.
constexpr Offsets kNeighbours = {{0, 1, -1, 0, 0, 1, -1, 1, -1, 2, -2, 2, -2, 0, 0, 1},
                                 {0, 0, 0, 1, -1, 1, -1, -1, 1, 1, -1, 0, 0, 2, -2, 2}};
constexpr int kSuperRatios = 4;
constexpr float kSuperRatio[kSuperRatios] = {0.96f, 0.985f, 1.015f, 1.04f};
constexpr int kMaxRadius = 7,
              kMaxOffsets = (2 * kMaxRadius + 1) * (2 * kMaxRadius + 1) / kCandidates + 1;

/// All pairs within ± radius, the nearest first, so that early ones give a good bound. Returns how
/// many sets.
int square_of_offsets(int radius, Offsets* out) {
  radius = radius < 0 ? 0 : radius > kMaxRadius ? kMaxRadius : radius;
  for (int k = 0; k < kMaxOffsets; ++k) out[k] = {};
  int n = 0;
  for (int distance = 0; distance <= 2 * radius; ++distance) {
    for (int a = -radius; a <= radius; ++a) {
      for (int c = -radius; c <= radius; ++c) {
        if ((a < 0 ? -a : a) + (c < 0 ? -c : c) != distance) continue;
        out[n / kCandidates].scale[n % kCandidates] = static_cast<float>(a);
        out[n / kCandidates].min[n % kCandidates] = static_cast<float>(c);
        ++n;
      }
    }
  }
  return (n + kCandidates - 1) / kCandidates;
}

float round_to_half(float x) {
  if (x > 65504.f) return 65504.f;
  return gguf::half_to_float(gguf::float_to_half(x));
}

int nearest_six_bits(float x) {
  const float rounded = std::nearbyint(x);
  return rounded < 0.f ? 0 : rounded > 63.f ? 63 : static_cast<int>(rounded);
}

namespace baseline {
#define SQ_LANES 4
#include "spectralquant/quantize/row_kernels.inl"
#undef SQ_LANES
}  // namespace baseline

#if defined(__x86_64__)
#define SQ_X86_LEVELS 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
namespace avx2 {
#define SQ_LANES 8
#include "spectralquant/quantize/row_kernels.inl"
#undef SQ_LANES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw")
#endif
namespace avx512 {
#define SQ_LANES 16
#include "spectralquant/quantize/row_kernels.inl"
#undef SQ_LANES
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/// h (32 × 32 in out.h) = b bᵀ with b upper, in double; then u = b⁻¹.
void factor(BlockFactors& out) {
  double b[kBlock][kBlock], v[kBlock][kBlock] = {};
  for (int j = kBlock - 1; j >= 0; --j) {
    const double diagonal = out.h[j * kBlock + j];
    double s = diagonal;
    for (int k = j + 1; k < kBlock; ++k) s -= b[j][k] * b[j][k];
    // float carries no more of a nearly singular block
    const double floor = 1e-7 * std::fabs(diagonal) + 1e-30;
    b[j][j] = std::sqrt(s > floor ? s : floor);
    const double inverse = 1 / b[j][j];
    for (int i = 0; i < j; ++i) {
      double t = out.h[i * kBlock + j];
      for (int k = j + 1; k < kBlock; ++k) t -= b[i][k] * b[j][k];
      b[i][j] = t * inverse;
    }
  }
  for (int i = kBlock - 1; i >= 0; --i) {
    const double inverse = 1 / b[i][i];
    v[i][i] = inverse;
    for (int k = i + 1; k < kBlock; ++k) {
      const double factor = b[i][k] * inverse;
      for (int j = k; j < kBlock; ++j) v[i][j] -= factor * v[k][j];
    }
  }
  for (int i = 0; i < kBlock; ++i) {
    for (int j = 0; j < kBlock; ++j) {
      out.u[i * kBlock + j] = static_cast<float>(v[i][j]);
      out.u_transposed[j * kBlock + i] = static_cast<float>(v[i][j]);
    }
    out.u_inverse[i] = static_cast<float>(b[i][i]);
    const float diagonal = out.h[i * kBlock + i];
    out.h_inverse[i] = diagonal > 0.f ? 1.f / diagonal : 0.f;
  }
}

}  // namespace

SimdLevel simd_level() {
#if defined(SQ_X86_LEVELS)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
    return SimdLevel::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return SimdLevel::kAvx2;
#endif
  return SimdLevel::kBaseline;
}

const RowKernels* row_kernels(SimdLevel level) {
  if (level > simd_level()) return nullptr;
#if defined(SQ_X86_LEVELS)
  if (level == SimdLevel::kAvx512) return &avx512::kKernels;
  if (level == SimdLevel::kAvx2) return &avx2::kKernels;
#endif
  return &baseline::kKernels;
}

const RowKernels& row_kernels() { return *row_kernels(simd_level()); }

void factor_block(const float* h, const float* c, float weight, std::int64_t cols,
                  std::int64_t first, BlockFactors& out) {
  for (int i = 0; i < kBlock; ++i) {
    const std::int64_t row = tiled_index(first + i, first, cols);
    for (int j = 0; j < kBlock; ++j)
      out.h[i * kBlock + j] = c ? h[row + j] + weight * c[row + j] : h[row + j];
  }
  factor(out);
}

void factor_diagonal_block(const float* diagonal, BlockFactors& out) {
  std::memset(out.h, 0, sizeof out.h);
  for (int i = 0; i < kBlock; ++i) out.h[i * kBlock + i] = diagonal[i];
  factor(out);
}

void take_block(const float* u, bool diagonal, std::int64_t cols, std::int64_t first,
                BlockFactors& out) {
  std::memset(out.u, 0, sizeof out.u);
  for (int i = 0; i < kBlock; ++i) {
    if (diagonal) {
      out.u[i * kBlock + i] = u[first + i];
    } else {
      std::memcpy(out.u + i * kBlock + i, u + tiled_index(first + i, first + i, cols),
                  (kBlock - i) * sizeof(float));
    }
    out.u_inverse[i] = 1.f / out.u[i * kBlock + i];
  }
}

void decode_row(RowWork& row, std::int64_t cols) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float step = row.d[b / 8] * static_cast<float>(row.scale[b]),
                offset = row.dmin[b / 8] * static_cast<float>(row.min[b]);
    for (std::int64_t i = b * kBlock; i < (b + 1) * kBlock; ++i)
      row.value[i] = row.code[i] * step - offset;
  }
}

}  // namespace spectralquant::quantize
