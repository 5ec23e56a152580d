#include "spectralquant/quantize/row_solver.h"

#include <cmath>
#include <cstring>

#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/quantize/method.h"

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
  float flip[kCandidates], up[kCandidates], min_up[kCandidates];
};

constexpr Offsets to_offsets(const Step* steps) {
  Offsets out{};
  for (int k = 0; k < kCandidates; ++k) {
    out.flip[k] = static_cast<float>(steps[k].flip);
    out.up[k] = static_cast<float>(steps[k].up);
    out.min_up[k] = static_cast<float>(steps[k].min_up);
  }
  return out;
}

template <class F>
constexpr Offsets kSweepOffsets = to_offsets(kNeighbours<F>);

constexpr int kMaxOffsets = kMaxSteps / kCandidates;

/// The steps of the start. Returns how many sets.
template <class F>
int start_offsets(int radius, Offsets* out) {
  Step steps[kMaxSteps];
  const int n_sets =
      (steps_within(radius, F::kHasMin, F::kHasSignedSteps, steps) + kCandidates - 1) / kCandidates;
  for (int k = 0; k < n_sets; ++k) out[k] = to_offsets(steps + k * kCandidates);
  return n_sets;
}

/// A step, or d, that values can be divided by.
template <class F>
SQ_INLINE bool is_usable(float step) {
  return F::kHasSignedSteps ? step > 0.f || step < 0.f : step > 0.f;
}

template <class F>
SQ_INLINE float offset_of(float dmin, float min) {
  return F::kHasMin ? dmin * min : 0.f;
}

float round_to_half(float x) {
  if (x > kLargestHalf) return kLargestHalf;
  if (x < -kLargestHalf) return -kLargestHalf;
  return gguf::half_to_float(gguf::float_to_half(x));
}

int nearest_in(const format::Range& range, float x) {
  const float rounded = std::nearbyint(x);
  return rounded < static_cast<float>(range.lowest)    ? range.lowest
         : rounded > static_cast<float>(range.highest) ? range.highest
                                                       : static_cast<int>(rounded);
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

/// h (in out.h) = b bᵀ with b upper, in double; then u = b⁻¹.
template <class F>
void factor(BlockFactors<F>& out) {
  constexpr int kBlock = F::kBlock;
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

template <class F>
const RowKernels<F>* row_kernels(SimdLevel level) {
  if (level > simd_level()) return nullptr;
#if defined(SQ_X86_LEVELS)
  if (level == SimdLevel::kAvx512) return &avx512::kKernels<F>;
  if (level == SimdLevel::kAvx2) return &avx2::kKernels<F>;
#endif
  return &baseline::kKernels<F>;
}

const Products* products(SimdLevel level) {
  if (level > simd_level()) return nullptr;
#if defined(SQ_X86_LEVELS)
  if (level == SimdLevel::kAvx512) return &avx512::kProducts;
  if (level == SimdLevel::kAvx2) return &avx2::kProducts;
#endif
  return &baseline::kProducts;
}

template <class F>
void factor_block(const float* h, const float* c, float weight, std::int64_t cols,
                  std::int64_t first, BlockFactors<F>& out) {
  constexpr int kBlock = F::kBlock;
  for (int i = 0; i < kBlock; ++i) {
    const std::int64_t row = tiled_index(first + i, first, cols);
    for (int j = 0; j < kBlock; ++j)
      out.h[i * kBlock + j] = c ? h[row + j] + weight * c[row + j] : h[row + j];
  }
  factor(out);
}

template <class F>
void factor_diagonal_block(const float* diagonal, BlockFactors<F>& out) {
  constexpr int kBlock = F::kBlock;
  std::memset(out.h, 0, sizeof out.h);
  for (int i = 0; i < kBlock; ++i) out.h[i * kBlock + i] = diagonal[i];
  factor(out);
}

template <class F>
void take_block(const float* u, bool diagonal, std::int64_t cols, std::int64_t first,
                BlockFactors<F>& out) {
  constexpr int kBlock = F::kBlock;
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

template <class F>
void decode_row(RowWork<F>& row, std::int64_t cols) {
  constexpr int kBlock = F::kBlock, kBlocks = F::kBlocks;
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float step = row.d[b / kBlocks] * static_cast<float>(row.scale[b]),
                offset = offset_of<F>(row.dmin[b / kBlocks], static_cast<float>(row.min[b]));
    for (std::int64_t i = b * kBlock; i < (b + 1) * kBlock; ++i)
      row.value[i] = row.code[i] * step - offset;
  }
}

#define SQ_INSTANTIATE(name)                                                                \
  template const RowKernels<ShapedAs<format::name>>* row_kernels(SimdLevel);                \
  template void factor_block(const float*, const float*, float, std::int64_t, std::int64_t, \
                             BlockFactors<ShapedAs<format::name>>&);                        \
  template void factor_diagonal_block(const float*, BlockFactors<ShapedAs<format::name>>&); \
  template void take_block(const float*, bool, std::int64_t, std::int64_t,                  \
                           BlockFactors<ShapedAs<format::name>>&);                          \
  template void decode_row(RowWork<ShapedAs<format::name>>&, std::int64_t);
SPECTRALQUANT_SHAPES(SQ_INSTANTIATE)

}  // namespace spectralquant::quantize
