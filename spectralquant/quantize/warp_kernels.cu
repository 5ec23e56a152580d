// warp_kernels.inl for a GPU: a warp a row, a thread a lane. Launches go to the default stream,
// which is torch's too.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

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
SQ_FN Lane load(const float* p) { return p[lane_index()]; }
SQ_FN Lane load_bytes(const std::uint8_t* p) { return p[lane_index()]; }
SQ_FN Lane load_index() { return static_cast<float>(lane_index()); }
SQ_FN Lane lane_sqrt(Lane x) { return sqrtf(x); }
SQ_FN Lane round_nearest(Lane x) { return rintf(x); }
SQ_FN void store(float* p, Lane x) { p[lane_index()] = x; }
SQ_FN void store_bytes(std::uint8_t* p, Lane x) { p[lane_index()] = static_cast<std::uint8_t>(x); }

SQ_FN float lane_sum(Lane x) {
  for (int i = kLanes / 2; i > 0; i /= 2) x += __shfl_xor_sync(kAll, x, i);
  return x;
}
SQ_FN float lane_min(Lane x) {
  for (int i = kLanes / 2; i > 0; i /= 2) x = fminf(x, __shfl_xor_sync(kAll, x, i));
  return x;
}
SQ_FN float lane_max(Lane x) { return -lane_min(-x); }
SQ_FN int first_least(Lane x) {
  x = x < 3e38f ? x : 3e38f;  // NaN is the worst
  return __ffs(static_cast<int>(__ballot_sync(kAll, x == lane_min(x)))) - 1;
}

/// Codes of a block for all candidates, four bits a column: put by column, taken by candidate.
struct Codes {
  unsigned packed[4] = {0, 0, 0, 0};
  SQ_FN void put(int column, Lane q) {
    packed[column / 8] |= static_cast<unsigned>(q) << (4 * (column % 8));
  }
  SQ_FN Lane of(int candidate) const {
    unsigned word = 0;
    for (int i = 0; i < 4; ++i) {
      const unsigned part = __shfl_sync(kAll, packed[i], candidate);
      word = lane_index() / 8 == i ? part : word;
    }
    return static_cast<float>((word >> (4 * (lane_index() % 8))) & 15u);
  }
};

SQ_FN float round_half(float x) { return x > 65504.f ? 65504.f : __half2float(__float2half_rn(x)); }

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

__global__ void round_kernel(Cells cells, Rows rows, const float* importance) {
  SQ_ROW(rows);
  round_row(cells, r, importance);
}
__global__ void start_kernel(Cells cells, Rows rows, std::int64_t b, const float* tau,
                             const float* u, Offsets offsets, float* error) {
  SQ_ROW(rows);
  start_row(cells, r, k, b, tau, u, offsets, error);
}
__global__ void propose_block_kernel(Cells cells, Rows rows, std::int64_t b, const float* m,
                                     const float* factors, const std::int32_t* bucket,
                                     Offsets offsets, bool scale_search, Proposal out) {
  SQ_ROW(rows);
  propose_block_row(cells, r, k, b, m, factors, bucket, offsets, scale_search, out);
}
__global__ void propose_super_kernel(Cells cells, Rows rows, std::int64_t s, const float* m,
                                     const float* factors, const float* h,
                                     const std::int32_t* bucket, Offsets offsets, Proposal out) {
  SQ_ROW(rows);
  propose_super_row(cells, r, k, s, m, factors, h, bucket, offsets, out);
}
__global__ void commit_kernel(Cells cells, Rows rows, std::int64_t column, int width,
                              const std::uint8_t* accept, Proposal proposal) {
  SQ_ROW(rows);
  commit_row(cells, r, k, column, width, accept, proposal);
}
__global__ void decode_kernel(Cells cells, Rows rows) {
  SQ_ROW(rows);
  decode_row(cells, r);
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

void gpu_round(const Cells& cells, const Rows& rows, const float* importance) {
  if (rows.n > 0) round_kernel<<<grid(rows), kThreads>>>(cells, rows, importance);
  check();
}
void gpu_start_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* tau,
                     const float* u, const Offsets& offsets, float* error) {
  if (rows.n > 0) start_kernel<<<grid(rows), kThreads>>>(cells, rows, b, tau, u, offsets, error);
  check();
}
void gpu_propose_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* m,
                       const float* factors, const std::int32_t* bucket, const Offsets& offsets,
                       bool scale_search, const Proposal& out) {
  if (rows.n > 0)
    propose_block_kernel<<<grid(rows), kThreads>>>(cells, rows, b, m, factors, bucket, offsets,
                                                   scale_search, out);
  check();
}
void gpu_propose_super(const Cells& cells, const Rows& rows, std::int64_t s, const float* m,
                       const float* factors, const float* h, const std::int32_t* bucket,
                       const Offsets& offsets, const Proposal& out) {
  if (rows.n > 0)
    propose_super_kernel<<<grid(rows), kThreads>>>(cells, rows, s, m, factors, h, bucket, offsets,
                                                   out);
  check();
}
void gpu_commit(const Cells& cells, const Rows& rows, std::int64_t column, int width,
                const std::uint8_t* accept, const Proposal& proposal) {
  if (rows.n > 0)
    commit_kernel<<<grid(rows), kThreads>>>(cells, rows, column, width, accept, proposal);
  check();
}
void gpu_decode(const Cells& cells, const Rows& rows) {
  if (rows.n > 0) decode_kernel<<<grid(rows), kThreads>>>(cells, rows);
  check();
}

}  // namespace spectralquant::quantize::warp
