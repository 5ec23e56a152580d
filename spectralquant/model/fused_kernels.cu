// Norms: a warp a row, two values a lane. Gradients of weights: a thread block sums a share of the
// rows for 32 columns, in a fixed order.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "spectralquant/model/fused_kernels.h"

namespace spectralquant::model::fused {
namespace {

using Half = __nv_bfloat16;

constexpr int kWarp = 32, kWarpsEach = 8, kThreads = kWarp * kWarpsEach;
constexpr std::int64_t kRowsOfPart = 256;

__device__ float read(const float* p, std::int64_t i) { return p[i]; }
__device__ float read(const Half* p, std::int64_t i) { return __bfloat162float(p[i]); }
__device__ void write(float* p, std::int64_t i, float x) { p[i] = x; }
__device__ void write(Half* p, std::int64_t i, float x) { p[i] = __float2bfloat16_rn(x); }

__device__ float2 read_pair(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ float2 read_pair(const Half* p) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}
__device__ void write_pair(float* p, float2 x) { *reinterpret_cast<float2*>(p) = x; }
__device__ void write_pair(Half* p, float2 x) {
  *reinterpret_cast<__nv_bfloat162*>(p) = __float22bfloat162_rn(x);
}

__device__ float warp_sum(float x) {
  for (int i = kWarp / 2; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}

__device__ float sigmoid(float x) { return 1 / (1 + __expf(-x)); }

/// The row of this warp, and the first of its lane's pairs.
struct Place {
  std::int64_t row;
  int first;
};
__device__ Place place() {
  return {static_cast<std::int64_t>(blockIdx.x) * kWarpsEach + threadIdx.x / kWarp,
          2 * (static_cast<int>(threadIdx.x) % kWarp)};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const T* x, const float* weight, std::int64_t n, int width, float eps, T* y,
                    float* scale) {
  const auto [row, first] = place();
  if (row >= n) return;
  x += row * width, y += row * width;
  float squares = 0;
  for (int i = first; i < width; i += 2 * kWarp) {
    const float2 pair = read_pair(x + i);
    squares += pair.x * pair.x + pair.y * pair.y;
  }
  const float by = rsqrtf(warp_sum(squares) / static_cast<float>(width) + eps);
  for (int i = first; i < width; i += 2 * kWarp) {
    const float2 pair = read_pair(x + i);
    write_pair(y + i, {pair.x * by * weight[i], pair.y * by * weight[i + 1]});
  }
  if (first == 0) scale[row] = by;
}

/// With g = at_y · weight and x̂ = x · scale: at_x = scale · (g − x̂ · mean(g · x̂)).
template <class T>
__global__ void __launch_bounds__(kThreads)
    rms_norm_backward_kernel(const T* x, const float* weight, const float* scale, const T* at_y,
                             std::int64_t n, int width, T* at_x) {
  const auto [row, first] = place();
  if (row >= n) return;
  x += row * width, at_y += row * width, at_x += row * width;
  const float by = scale[row];
  float products = 0;
  for (int i = first; i < width; i += 2 * kWarp) {
    const float2 value = read_pair(x + i), at = read_pair(at_y + i);
    products += at.x * weight[i] * value.x + at.y * weight[i + 1] * value.y;
  }
  const float mean = warp_sum(products) * by * by / static_cast<float>(width);
  for (int i = first; i < width; i += 2 * kWarp) {
    const float2 value = read_pair(x + i), at = read_pair(at_y + i);
    write_pair(at_x + i, {by * (at.x * weight[i] - value.x * mean),
                          by * (at.y * weight[i + 1] - value.y * mean)});
  }
}

/// sums[w][lane] → their sum over w, at w = 0.
template <int N>
__device__ void sum_warps(float (&sums)[kWarpsEach][N][kWarp], int warp, int lane) {
  for (int half = kWarpsEach / 2; half > 0; half /= 2) {
    __syncthreads();
    if (warp < half) {
      for (int j = 0; j < N; ++j) sums[warp][j][lane] += sums[warp + half][j][lane];
    }
  }
}

/// parts[p, c] = Σ over the rows of part p of at_y · x · scale.
template <class T>
__global__ void __launch_bounds__(kThreads)
    norm_weight_kernel(const T* x, const float* scale, const T* at_y, std::int64_t n, int width,
                       float* parts) {
  __shared__ float sums[kWarpsEach][1][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp,
            column = static_cast<int>(blockIdx.x) * kWarp + lane;
  const std::int64_t begin = blockIdx.y * kRowsOfPart, end = min(n, begin + kRowsOfPart);
  float sum = 0;
  if (column < width) {
    for (std::int64_t row = begin + warp; row < end; row += kWarpsEach)
      sum += read(at_y, row * width + column) * read(x, row * width + column) * scale[row];
  }
  sums[warp][0][lane] = sum;
  sum_warps<1>(sums, warp, lane);
  if (warp == 0 && column < width)
    parts[static_cast<std::int64_t>(blockIdx.y) * width + column] = sums[0][0][lane];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    swiglu_kernel(const T* gate, const T* up, std::int64_t n, T* y) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float g = read(gate, i);
  write(y, i, g * sigmoid(g) * read(up, i));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_kernel(const T* gate, const T* up, const T* at_y, std::int64_t n, T* at_gate,
                           T* at_up) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float g = read(gate, i), s = sigmoid(g), at = read(at_y, i);
  write(at_up, i, at * g * s);
  write(at_gate, i, at * read(up, i) * s * (1 + g * (1 - s)));
}

/// A thread a value of y; forward false: of the gradient at x.
template <class T, bool kForward>
__global__ void __launch_bounds__(kThreads)
    conv_kernel(const T* x, const float* weight, std::int64_t n, std::int64_t n_tokens, int width,
                int taps, T* y) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int column = static_cast<int>(i % width);
  const std::int64_t token = i / width % n_tokens;
  float sum = 0;
  for (int j = 0; j < taps; ++j) {
    const int away = kForward ? j - taps + 1 : taps - 1 - j;
    if (token + away < 0 || token + away >= n_tokens) continue;
    sum += weight[column * taps + j] * read(x, i + static_cast<std::int64_t>(away) * width);
  }
  write(y, i, sum);
}

/// parts[p, c, j] = Σ over the tokens of part p of at_y[t, c] · x[t − taps + 1 + j, c].
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_weight_kernel(const T* x, const T* at_y, std::int64_t n, std::int64_t n_tokens, int width,
                       int taps, float* parts) {
  __shared__ float sums[kWarpsEach][kMostTaps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp,
            column = static_cast<int>(blockIdx.x) * kWarp + lane;
  const std::int64_t begin = blockIdx.y * kRowsOfPart, end = min(n, begin + kRowsOfPart);
  float sum[kMostTaps] = {};
  if (column < width) {
    for (std::int64_t row = begin + warp; row < end; row += kWarpsEach) {
      const std::int64_t token = row % n_tokens;
      const float at = read(at_y, row * width + column);
      for (int j = 0; j < taps; ++j) {
        const int away = j - taps + 1;
        if (token + away >= 0) sum[j] += at * read(x, (row + away) * width + column);
      }
    }
  }
  for (int j = 0; j < kMostTaps; ++j) sums[warp][j][lane] = sum[j];
  sum_warps<kMostTaps>(sums, warp, lane);
  if (warp != 0 || column >= width) return;
  for (int j = 0; j < taps; ++j) {
    parts[(static_cast<std::int64_t>(blockIdx.y) * width + column) * taps + j] = sums[0][j][lane];
  }
}

unsigned groups(std::int64_t n, std::int64_t each) {
  return static_cast<unsigned>((n + each - 1) / each);
}

dim3 weight_grid(std::int64_t n, std::int64_t width) {
  return {groups(width, kWarp), static_cast<unsigned>(n_parts(n)), 1};
}

void check() {
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

/// launch(a null pointer to the type of the rows).
template <class Launch>
void with_type(bool half, const Launch& launch) {
  if (half) {
    launch(static_cast<Half*>(nullptr));
  } else {
    launch(static_cast<float*>(nullptr));
  }
  check();
}

}  // namespace

std::int64_t n_parts(std::int64_t n_rows) { return (n_rows + kRowsOfPart - 1) / kRowsOfPart; }

void rms_norm(const void* x, const float* weight, std::int64_t n, std::int64_t width, float eps,
              bool half, void* y, float* scale, Stream stream) {
  if (n == 0) return;
  with_type(half, [&](auto* row_type) {
    using T = std::remove_pointer_t<decltype(row_type)>;
    rms_norm_kernel<T><<<groups(n, kWarpsEach), kThreads, 0, stream>>>(
        static_cast<const T*>(x), weight, n, static_cast<int>(width), eps, static_cast<T*>(y),
        scale);
  });
}

void rms_norm_backward(const void* x, const float* weight, const float* scale, const void* at_y,
                       std::int64_t n, std::int64_t width, bool half, void* at_x,
                       float* weight_parts, Stream stream) {
  if (n == 0) return;
  with_type(half, [&](auto* row_type) {
    using T = std::remove_pointer_t<decltype(row_type)>;
    const auto *in = static_cast<const T*>(x), *at = static_cast<const T*>(at_y);
    const int columns = static_cast<int>(width);
    rms_norm_backward_kernel<T><<<groups(n, kWarpsEach), kThreads, 0, stream>>>(
        in, weight, scale, at, n, columns, static_cast<T*>(at_x));
    norm_weight_kernel<T>
        <<<weight_grid(n, width), kThreads, 0, stream>>>(in, scale, at, n, columns, weight_parts);
  });
}

void swiglu(const void* gate, const void* up, std::int64_t n, bool half, void* y, Stream stream) {
  if (n == 0) return;
  with_type(half, [&](auto* row_type) {
    using T = std::remove_pointer_t<decltype(row_type)>;
    swiglu_kernel<T><<<groups(n, kThreads), kThreads, 0, stream>>>(
        static_cast<const T*>(gate), static_cast<const T*>(up), n, static_cast<T*>(y));
  });
}

void swiglu_backward(const void* gate, const void* up, const void* at_y, std::int64_t n, bool half,
                     void* at_gate, void* at_up, Stream stream) {
  if (n == 0) return;
  with_type(half, [&](auto* row_type) {
    using T = std::remove_pointer_t<decltype(row_type)>;
    swiglu_backward_kernel<T><<<groups(n, kThreads), kThreads, 0, stream>>>(
        static_cast<const T*>(gate), static_cast<const T*>(up), static_cast<const T*>(at_y), n,
        static_cast<T*>(at_gate), static_cast<T*>(at_up));
  });
}

void causal_conv(const void* x, const float* weight, std::int64_t n_sequences,
                 std::int64_t n_tokens, std::int64_t width, std::int64_t taps, bool half, void* y,
                 Stream stream) {
  const std::int64_t n = n_sequences * n_tokens * width;
  if (n == 0) return;
  with_type(half, [&](auto* row_type) {
    using T = std::remove_pointer_t<decltype(row_type)>;
    conv_kernel<T, true><<<groups(n, kThreads), kThreads, 0, stream>>>(
        static_cast<const T*>(x), weight, n, n_tokens, static_cast<int>(width),
        static_cast<int>(taps), static_cast<T*>(y));
  });
}

void causal_conv_backward(const void* x, const float* weight, const void* at_y,
                          std::int64_t n_sequences, std::int64_t n_tokens, std::int64_t width,
                          std::int64_t taps, bool half, void* at_x, float* weight_parts,
                          Stream stream) {
  const std::int64_t rows = n_sequences * n_tokens, n = rows * width;
  if (n == 0) return;
  with_type(half, [&](auto* row_type) {
    using T = std::remove_pointer_t<decltype(row_type)>;
    const auto* at = static_cast<const T*>(at_y);
    const int columns = static_cast<int>(width), n_taps = static_cast<int>(taps);
    conv_kernel<T, false><<<groups(n, kThreads), kThreads, 0, stream>>>(
        at, weight, n, n_tokens, columns, n_taps, static_cast<T*>(at_x));
    conv_weight_kernel<T><<<weight_grid(rows, width), kThreads, 0, stream>>>(
        static_cast<const T*>(x), at, rows, n_tokens, columns, n_taps, weight_parts);
  });
}

}  // namespace spectralquant::model::fused
