// warp_kernels.inl for a GPU: a warp a row, a thread a lane. Launches go to the default stream,
// which is torch's too.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "spectralquant/quantize/method.h"
#include "spectralquant/quantize/warp_kernels.h"

namespace spectralquant::quantize::warp {
namespace {

#define SQ_FN __device__ __forceinline__
#define SQ_UNROLL _Pragma("unroll")

using Lane = float;
constexpr unsigned kAll = 0xffffffffu;

SQ_FN int lane_index() { return static_cast<int>(threadIdx.x) & (kLanes - 1); }
SQ_FN Lane splat(float x) { return x; }
SQ_FN float get(Lane x, int i) { return __shfl_sync(kAll, x, i); }
SQ_FN void set(Lane& x, int i, float value) { x = lane_index() == i ? value : x; }
SQ_FN Lane select(bool mask, Lane a, Lane b) { return mask ? a : b; }
template <int N>
SQ_FN Lane load(const float* p) {
  return lane_index() < N ? p[lane_index()] : 0.f;
}
template <int N>
SQ_FN Lane load_bytes(const std::int8_t* p) {
  return lane_index() < N ? p[lane_index()] : 0.f;
}
SQ_FN Lane round_nearest(Lane x) { return rintf(x); }
template <int N>
SQ_FN void store(float* p, Lane x) {
  if (lane_index() < N) p[lane_index()] = x;
}
template <int N>
SQ_FN void store_bytes(std::int8_t* p, Lane x) {
  if (lane_index() < N) p[lane_index()] = static_cast<std::int8_t>(x);
}

SQ_FN float lane_sum(Lane x) {
  for (int i = kLanes / 2; i > 0; i /= 2) x += __shfl_xor_sync(kAll, x, i);
  return x;
}
SQ_FN float lane_min(Lane x) {
  for (int i = kLanes / 2; i > 0; i /= 2) x = fminf(x, __shfl_xor_sync(kAll, x, i));
  return x;
}
SQ_FN int first_least(Lane x) {
  x = x < 3e38f ? x : 3e38f;  // NaN is the worst
  return __ffs(static_cast<int>(__ballot_sync(kAll, x == lane_min(x)))) - 1;
}

/// Codes of a block for all candidates, in eight bits each: put by column, taken by candidate.
template <class F>
struct Codes {
  static constexpr int kBits = 8, kEach = 32 / kBits, kWords = F::kBlock / kEach;
  unsigned packed[kWords] = {};
  SQ_FN void put(int column, Lane q, const Numbers& n) {
    const float lowest = static_cast<float>(n.code.lowest);
    packed[column / kEach] |= static_cast<unsigned>(q - lowest) << (kBits * (column % kEach));
  }
  SQ_FN Lane of(int candidate, const Numbers& n) const {
    unsigned word = 0;
    for (int i = 0; i < kWords; ++i) {
      const unsigned part = __shfl_sync(kAll, packed[i], candidate);
      word = lane_index() / kEach == i ? part : word;
    }
    const unsigned code = word >> (kBits * (lane_index() % kEach)) & ((1u << kBits) - 1);
    return static_cast<float>(static_cast<int>(code) + n.code.lowest);
  }
};

SQ_FN float round_half(float x) {
  return x > kLargestHalf    ? kLargestHalf
         : x < -kLargestHalf ? -kLargestHalf
                             : __half2float(__float2half_rn(x));
}

template <typename T>
SQ_FN void put(T* p, T value) {
  if (lane_index() == 0) *p = value;
}

#include "spectralquant/quantize/warp_kernels.inl"

constexpr int kWarpsEach = 4;  // rows to a thread block

SQ_FN std::int64_t warp_index() {
  return (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
}

#define SQ_ROW(rows)                   \
  const std::int64_t k = warp_index(); \
  if (k >= (rows).n) return;           \
  const std::int64_t r = row_of(rows, k)

template <class F>
__global__ void start_kernel(Cells cells, Rows rows, std::int64_t b, const float* tau,
                             const float* u, Offsets offsets, float* error) {
  SQ_ROW(rows);
  start_row<F>(cells, r, k, b, tau, u, offsets, error);
}
template <class F>
__global__ void propose_block_kernel(Cells cells, Rows rows, std::int64_t b, const float* m,
                                     const float* factors, const std::int32_t* bucket,
                                     Offsets offsets, bool scale_search, Proposal out) {
  SQ_ROW(rows);
  propose_block_row<F>(cells, r, k, b, m, factors, bucket, offsets, scale_search, out);
}
template <class F>
__global__ void propose_super_kernel(Cells cells, Rows rows, std::int64_t s, const float* m,
                                     const float* factors, const float* h,
                                     const std::int32_t* bucket, Offsets offsets, Proposal out) {
  SQ_ROW(rows);
  if constexpr (F::kHasScales)
    propose_super_row<F>(cells, r, k, s, m, factors, h, bucket, offsets, out);
}
template <class F>
__global__ void commit_kernel(Cells cells, Rows rows, std::int64_t column, int width,
                              const std::uint8_t* accept, Proposal proposal) {
  SQ_ROW(rows);
  commit_row<F>(cells, r, k, column, width, accept, proposal);
}
template <class F>
__global__ void decode_kernel(Cells cells, Rows rows) {
  SQ_ROW(rows);
  decode_row<F>(cells, r);
}

unsigned grid(const Rows& rows) {
  return static_cast<unsigned>((rows.n + kWarpsEach - 1) / kWarpsEach);
}

void check() {
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

}  // namespace

constexpr int kThreads = kWarpsEach * kLanes;

template <class F>
void gpu_start_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* tau,
                     const float* u, const Offsets& offsets, float* error) {
  if (rows.n > 0) start_kernel<F><<<grid(rows), kThreads>>>(cells, rows, b, tau, u, offsets, error);
  check();
}
template <class F>
void gpu_propose_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* m,
                       const float* factors, const std::int32_t* bucket, const Offsets& offsets,
                       bool scale_search, const Proposal& out) {
  if (rows.n > 0)
    propose_block_kernel<F>
        <<<grid(rows), kThreads>>>(cells, rows, b, m, factors, bucket, offsets, scale_search, out);
  check();
}
template <class F>
void gpu_propose_super(const Cells& cells, const Rows& rows, std::int64_t s, const float* m,
                       const float* factors, const float* h, const std::int32_t* bucket,
                       const Offsets& offsets, const Proposal& out) {
  if (rows.n > 0)
    propose_super_kernel<F>
        <<<grid(rows), kThreads>>>(cells, rows, s, m, factors, h, bucket, offsets, out);
  check();
}
template <class F>
void gpu_commit(const Cells& cells, const Rows& rows, std::int64_t column, int width,
                const std::uint8_t* accept, const Proposal& proposal) {
  if (rows.n > 0)
    commit_kernel<F><<<grid(rows), kThreads>>>(cells, rows, column, width, accept, proposal);
  check();
}
template <class F>
void gpu_decode(const Cells& cells, const Rows& rows) {
  if (rows.n > 0) decode_kernel<F><<<grid(rows), kThreads>>>(cells, rows);
  check();
}

#define SQ_INSTANTIATE(name)                                                                     \
  template void gpu_start_block<ShapedAs<format::name>>(const Cells&, const Rows&, std::int64_t, \
                                                        const float*, const float*,              \
                                                        const Offsets&, float*);                 \
  template void gpu_propose_block<ShapedAs<format::name>>(                                       \
      const Cells&, const Rows&, std::int64_t, const float*, const float*, const std::int32_t*,  \
      const Offsets&, bool, const Proposal&);                                                    \
  template void gpu_propose_super<ShapedAs<format::name>>(                                       \
      const Cells&, const Rows&, std::int64_t, const float*, const float*, const float*,         \
      const std::int32_t*, const Offsets&, const Proposal&);                                     \
  template void gpu_commit<ShapedAs<format::name>>(const Cells&, const Rows&, std::int64_t, int, \
                                                   const std::uint8_t*, const Proposal&);        \
  template void gpu_decode<ShapedAs<format::name>>(const Cells&, const Rows&);
SPECTRALQUANT_SHAPES(SQ_INSTANTIATE)

}  // namespace spectralquant::quantize::warp
