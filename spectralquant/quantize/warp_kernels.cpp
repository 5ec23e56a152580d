#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors never cross a function that is not inlined
#endif
#include "spectralquant/quantize/warp_kernels.h"

#include <algorithm>
#include <cmath>

#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/quantize/method.h"

namespace spectralquant::quantize::warp {
namespace {

#define SQ_FN inline __attribute__((always_inline))
#define SQ_UNROLL

using Lane = float __attribute__((vector_size(4 * kLanes)));
using Mask = int __attribute__((vector_size(4 * kLanes)));

SQ_FN Lane splat(float x) { return Lane{} + x; }
SQ_FN float get(const Lane& x, int i) { return x[i]; }
SQ_FN void set(Lane& x, int i, float value) { x[i] = value; }
SQ_FN Lane select(const Mask& mask, const Lane& a, const Lane& b) { return mask ? a : b; }

template <typename Step>
SQ_FN Lane each(const Step& step) {
  Lane x;
  for (int i = 0; i < kLanes; ++i) x[i] = step(i);
  return x;
}

template <int N>
SQ_FN Lane load(const float* p) {
  return each([p](int i) { return i < N ? p[i] : 0.f; });
}
template <int N>
SQ_FN Lane load_bytes(const std::int8_t* p) {
  return each([p](int i) { return i < N ? static_cast<float>(p[i]) : 0.f; });
}
SQ_FN Lane round_nearest(const Lane& x) {
  return each([&x](int i) { return std::nearbyint(x[i]); });
}

template <int N>
SQ_FN void store(float* p, const Lane& x) {
  for (int i = 0; i < N; ++i) p[i] = x[i];
}
template <int N>
SQ_FN void store_bytes(std::int8_t* p, const Lane& x) {
  for (int i = 0; i < N; ++i) p[i] = static_cast<std::int8_t>(x[i]);
}

SQ_FN float lane_sum(const Lane& x) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}
SQ_FN int first_least(const Lane& x) {
  int best = 0;
  for (int i = 1; i < kLanes; ++i) {
    if (x[i] < x[best]) best = i;
  }
  return best;
}

/// Codes of a block for all candidates: put by column, taken by candidate.
template <class F>
struct Codes {
  Lane code[F::kBlock];
  SQ_FN void put(int column, const Lane& q, const Numbers&) { code[column] = q; }
  SQ_FN Lane of(int candidate, const Numbers&) const {
    return each([this, candidate](int i) { return i < F::kBlock ? code[i][candidate] : 0.f; });
  }
};

SQ_FN float round_half(float x) {
  return x > kLargestHalf    ? kLargestHalf
         : x < -kLargestHalf ? -kLargestHalf
                             : gguf::half_to_float(gguf::float_to_half(x));
}

SQ_FN Lane round_half(const Lane& x) {
  return each([&x](int i) { return round_half(x[i]); });
}

template <typename T>
SQ_FN void put(T* p, T value) {
  *p = value;
}

#include "spectralquant/quantize/warp_kernels.inl"

/// Rows to an item of work.
constexpr std::int64_t kRowsEach = 8;

template <typename Body>
void on_host(const Rows& rows, int n_threads, const Body& body) {
  parallel_for(static_cast<std::size_t>((rows.n + kRowsEach - 1) / kRowsEach), n_threads,
               [&](std::size_t item) {
                 const std::int64_t first = static_cast<std::int64_t>(item) * kRowsEach;
                 for (std::int64_t k = first; k < std::min(rows.n, first + kRowsEach); ++k)
                   body(row_of(rows, k), k);
               });
}

}  // namespace

#if defined(SPECTRALQUANT_CUDA)
// warp_kernels.cu
template <class F>
void gpu_start_block(const Cells&, const Rows&, std::int64_t, const float*, const float*,
                     const Offsets&, float*);
template <class F>
void gpu_propose_block(const Cells&, const Rows&, std::int64_t, const float*, const float*,
                       const std::int32_t*, const Offsets&, bool, const Proposal&);
template <class F>
void gpu_propose_super(const Cells&, const Rows&, std::int64_t, const float*, const float*,
                       const float*, const std::int32_t*, const Offsets&, const Proposal&);
template <class F>
void gpu_commit(const Cells&, const Rows&, std::int64_t, int, const std::uint8_t*, const Proposal&);
template <class F>
void gpu_decode(const Cells&, const Rows&);
#define SQ_ON_GPU(call) \
  if (on_gpu) return call
#else
#define SQ_ON_GPU(call)
#endif

template <class F>
void Launcher<F>::start_block(const Cells& cells, const Rows& rows, std::int64_t b,
                              const float* tau, const float* u, const Offsets& offsets,
                              float* error) const {
  SQ_ON_GPU(gpu_start_block<F>(cells, rows, b, tau, u, offsets, error));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    start_row<F>(cells, r, k, b, tau, u, offsets, error);
  });
}

template <class F>
void Launcher<F>::propose_block(const Cells& cells, const Rows& rows, std::int64_t b,
                                const float* m, const float* factors, const std::int32_t* bucket,
                                const Offsets& offsets, bool scale_search,
                                const Proposal& out) const {
  SQ_ON_GPU(gpu_propose_block<F>(cells, rows, b, m, factors, bucket, offsets, scale_search, out));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    propose_block_row<F>(cells, r, k, b, m, factors, bucket, offsets, scale_search, out);
  });
}

template <class F>
void Launcher<F>::propose_super(const Cells& cells, const Rows& rows, std::int64_t s,
                                const float* m, const float* factors, const float* h,
                                const std::int32_t* bucket, const Offsets& offsets,
                                const Proposal& out) const {
  if constexpr (F::kHasScales) {
    SQ_ON_GPU(gpu_propose_super<F>(cells, rows, s, m, factors, h, bucket, offsets, out));
    on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
      propose_super_row<F>(cells, r, k, s, m, factors, h, bucket, offsets, out);
    });
  }
}

template <class F>
void Launcher<F>::commit(const Cells& cells, const Rows& rows, std::int64_t column, int width,
                         const std::uint8_t* accept, const Proposal& proposal) const {
  SQ_ON_GPU(gpu_commit<F>(cells, rows, column, width, accept, proposal));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    commit_row<F>(cells, r, k, column, width, accept, proposal);
  });
}

template <class F>
void Launcher<F>::decode(const Cells& cells, const Rows& rows) const {
  SQ_ON_GPU(gpu_decode<F>(cells, rows));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t) { decode_row<F>(cells, r); });
}

#define SQ_INSTANTIATE(name) template struct Launcher<ShapedAs<format::name>>;
SPECTRALQUANT_SHAPES(SQ_INSTANTIATE)

}  // namespace spectralquant::quantize::warp
