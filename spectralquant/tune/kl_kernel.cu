// A block a row: one pass finds both normalizers and the KL, a second one writes the gradient.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "spectralquant/tune/kl_kernel.h"

namespace spectralquant::tune {
namespace {

constexpr int kThreads = 1024, kWarp = 32;

/// Σ e^(x − max), and Σ e^(x − max) · y for whatever y goes along.
struct Sum {
  float max = -3e38f, of_exp = 0, weighted = 0;

  __device__ void add(float x, float y) {
    if (x > max) {
      const float shrink = __expf(max - x);
      of_exp *= shrink;
      weighted *= shrink;
      max = x;
    }
    const float e = __expf(x - max);
    of_exp += e;
    weighted += e * y;
  }
  __device__ void add(const Sum& other) {
    const float top = fmaxf(max, other.max), mine = __expf(max - top),
                theirs = __expf(other.max - top);
    of_exp = of_exp * mine + other.of_exp * theirs;
    weighted = weighted * mine + other.weighted * theirs;
    max = top;
  }
  __device__ Sum of_lane(int offset) const {
    Sum out;
    out.max = __shfl_xor_sync(0xffffffffu, max, offset);
    out.of_exp = __shfl_xor_sync(0xffffffffu, of_exp, offset);
    out.weighted = __shfl_xor_sync(0xffffffffu, weighted, offset);
    return out;
  }
};

/// Over all threads of the block; every thread gets the result. `room`: a Sum a warp.
__device__ Sum over_block(Sum sum, Sum* room) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum.add(sum.of_lane(offset));
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = room[threadIdx.x % kWarp];  // as many warps as lanes
  for (int offset = kWarp / 2; offset > 0; offset /= 2) sum.add(sum.of_lane(offset));
  __syncthreads();
  return sum;
}

__device__ void put(float* out, float value) { *out = value; }
__device__ void put(__nv_bfloat16* out, float value) { *out = __float2bfloat16_rn(value); }

template <typename Out>
__global__ void __launch_bounds__(kThreads)
    kl_kernel(const float* teacher, const float* student, std::int64_t vocab, float* kl,
              Out* gradient) {
  __shared__ Sum room[kThreads / kWarp];
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * vocab;
  Sum p, q;
  for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    const float a = teacher[row + i], b = student[row + i];
    p.add(a, a - b);
    q.add(b, 0);
  }
  p = over_block(p, room);
  q = over_block(q, room);
  const float log_p = p.max + logf(p.of_exp), log_q = q.max + logf(q.of_exp);
  if (threadIdx.x == 0) kl[blockIdx.x] = p.weighted / p.of_exp - log_p + log_q;
  if (!gradient) return;
  for (std::int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    put(gradient + row + i, __expf(student[row + i] - log_q) - __expf(teacher[row + i] - log_p));
  }
}

}  // namespace

void kl_rows(const float* teacher, const float* student, std::int64_t n, std::int64_t vocab,
             float* kl, void* gradient, bool half, CUstream_st* stream) {
  if (n == 0) return;
  const auto blocks = static_cast<unsigned>(n);
  if (half) {
    kl_kernel<<<blocks, kThreads, 0, stream>>>(teacher, student, vocab, kl,
                                               static_cast<__nv_bfloat16*>(gradient));
  } else {
    kl_kernel<<<blocks, kThreads, 0, stream>>>(teacher, student, vocab, kl,
                                               static_cast<float*>(gradient));
  }
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    throw std::runtime_error(std::string("kl_rows: ") + cudaGetErrorString(error));
}

}  // namespace spectralquant::tune
