#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors never cross a function that is not inlined
#endif
#include "spectralquant/quantize/warp_kernels.h"

#include <algorithm>
#include <cmath>

#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/codec/half.h"

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

SQ_FN Lane load(const float* p) {
  return each([p](int i) { return p[i]; });
}
SQ_FN Lane load_bytes(const std::uint8_t* p) {
  return each([p](int i) { return static_cast<float>(p[i]); });
}
SQ_FN Lane load_index() {
  return each([](int i) { return static_cast<float>(i); });
}
SQ_FN Lane lane_sqrt(const Lane& x) {
  return each([&x](int i) { return std::sqrt(x[i]); });
}
SQ_FN Lane round_nearest(const Lane& x) {
  return each([&x](int i) { return std::nearbyint(x[i]); });
}

SQ_FN void store(float* p, const Lane& x) {
  for (int i = 0; i < kLanes; ++i) p[i] = x[i];
}
SQ_FN void store_bytes(std::uint8_t* p, const Lane& x) {
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<std::uint8_t>(x[i]);
}

SQ_FN float lane_sum(const Lane& x) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}
SQ_FN float lane_min(const Lane& x) {
  float least = x[0];
  for (int i = 1; i < kLanes; ++i) least = std::min(least, x[i]);
  return least;
}
SQ_FN float lane_max(const Lane& x) { return -lane_min(-x); }
SQ_FN int first_least(const Lane& x) {
  int best = 0;
  for (int i = 1; i < kLanes; ++i) {
    if (x[i] < x[best]) best = i;
  }
  return best;
}

/// Codes of a block for all candidates: put by column, taken by candidate.
struct Codes {
  Lane code[kLanes];
  SQ_FN void put(int column, const Lane& q) { code[column] = q; }
  SQ_FN Lane of(int candidate) const {
    return each([this, candidate](int i) { return code[i][candidate]; });
  }
};

SQ_FN float round_half(float x) {
  return x > 65504.f ? 65504.f : gguf::half_to_float(gguf::float_to_half(x));
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
void gpu_round(const Cells&, const Rows&, const float*);
void gpu_start_block(const Cells&, const Rows&, std::int64_t, const float*, const float*,
                     const Offsets&, float*);
void gpu_propose_block(const Cells&, const Rows&, std::int64_t, const float*, const float*,
                       const std::int32_t*, const Offsets&, bool, const Proposal&);
void gpu_propose_super(const Cells&, const Rows&, std::int64_t, const float*, const float*,
                       const float*, const std::int32_t*, const Offsets&, const Proposal&);
void gpu_commit(const Cells&, const Rows&, std::int64_t, int, const std::uint8_t*, const Proposal&);
void gpu_decode(const Cells&, const Rows&);
#define SQ_ON_GPU(call) \
  if (on_gpu) return call
#else
#define SQ_ON_GPU(call)
#endif

void Launcher::round(const Cells& cells, const Rows& rows, const float* importance) const {
  SQ_ON_GPU(gpu_round(cells, rows, importance));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t) { round_row(cells, r, importance); });
}

void Launcher::start_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* tau,
                           const float* u, const Offsets& offsets, float* error) const {
  SQ_ON_GPU(gpu_start_block(cells, rows, b, tau, u, offsets, error));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    start_row(cells, r, k, b, tau, u, offsets, error);
  });
}

void Launcher::propose_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* m,
                             const float* factors, const std::int32_t* bucket,
                             const Offsets& offsets, bool scale_search, const Proposal& out) const {
  SQ_ON_GPU(gpu_propose_block(cells, rows, b, m, factors, bucket, offsets, scale_search, out));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    propose_block_row(cells, r, k, b, m, factors, bucket, offsets, scale_search, out);
  });
}

void Launcher::propose_super(const Cells& cells, const Rows& rows, std::int64_t s, const float* m,
                             const float* factors, const float* h, const std::int32_t* bucket,
                             const Offsets& offsets, const Proposal& out) const {
  SQ_ON_GPU(gpu_propose_super(cells, rows, s, m, factors, h, bucket, offsets, out));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    propose_super_row(cells, r, k, s, m, factors, h, bucket, offsets, out);
  });
}

void Launcher::commit(const Cells& cells, const Rows& rows, std::int64_t column, int width,
                      const std::uint8_t* accept, const Proposal& proposal) const {
  SQ_ON_GPU(gpu_commit(cells, rows, column, width, accept, proposal));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t k) {
    commit_row(cells, r, k, column, width, accept, proposal);
  });
}

void Launcher::decode(const Cells& cells, const Rows& rows) const {
  SQ_ON_GPU(gpu_decode(cells, rows));
  on_host(rows, n_threads, [&](std::int64_t r, std::int64_t) { decode_row(cells, r); });
}

}  // namespace spectralquant::quantize::warp
