#pragma once
#include <cstdint>

struct CUstream_st;

/// Layers of layers.h in one CUDA kernel each, and their gradients: plain pointers, no torch.
///
/// Shapes   rows: [n, width], contiguous, bfloat16 if `half`, else float32; weights and what is
///          summed over rows float32. All on the present device, launched on `stream`.
/// Errors   std::runtime_error if a launch fails.
namespace spectralquant::model::fused {

using Stream = CUstream_st*;

/// Partial sums over rows that a gradient of a weight is made of, the same for any device: [parts,
/// ..], to be added up by the caller.
std::int64_t n_parts(std::int64_t n_rows);

/// y = x · scale · weight, scale = rsqrt(mean(x²) + eps), [n]. width even.
void rms_norm(const void* x, const float* weight, std::int64_t n, std::int64_t width, float eps,
              bool half, void* y, float* scale, Stream stream);
/// weight_parts: [n_parts(n), width].
void rms_norm_backward(const void* x, const float* weight, const float* scale, const void* at_y,
                       std::int64_t n, std::int64_t width, bool half, void* at_x,
                       float* weight_parts, Stream stream);

/// y = silu(gate) · up, of n values.
void swiglu(const void* gate, const void* up, std::int64_t n, bool half, void* y, Stream stream);
void swiglu_backward(const void* gate, const void* up, const void* at_y, std::int64_t n, bool half,
                     void* at_gate, void* at_up, Stream stream);

/// Most taps of a convolution.
inline constexpr std::int64_t kMostTaps = 8;

/// y[b, t] = Σ_j weight[:, j] · x[b, t − taps + 1 + j]. x, y: [B, T, width]; weight: [width, taps].
void causal_conv(const void* x, const float* weight, std::int64_t n_sequences,
                 std::int64_t n_tokens, std::int64_t width, std::int64_t taps, bool half, void* y,
                 Stream stream);
/// weight_parts: [n_parts(B · T), width, taps].
void causal_conv_backward(const void* x, const float* weight, const void* at_y,
                          std::int64_t n_sequences, std::int64_t n_tokens, std::int64_t width,
                          std::int64_t taps, bool half, void* at_x, float* weight_parts,
                          Stream stream);

}  // namespace spectralquant::model::fused
