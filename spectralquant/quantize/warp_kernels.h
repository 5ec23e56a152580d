#pragma once
#include <cstdint>

#include "spectralquant/quantize/shape.h"

/// The kernels of the batched solver: plain pointers, no torch, one row to 32 lanes.
///
/// One text (warp_kernels.inl) is compiled twice: for a GPU, where a lane is a thread of a warp,
/// and for the host, where the lanes are one vector. The host version is there to test the
/// device's: it is slower than row_solver.h.
namespace spectralquant::quantize::warp {

inline constexpr int kLanes = 32;  ///< most columns of a block; candidates tried side by side
/// h, u and uᵀ of a block, inverse(h) = uᵀ u
template <class F>
inline constexpr int kFactorFloats = 3 * F::kBlock* F::kBlock;

/// A matrix being solved; all pointers to memory of the device.
struct Cells {
  const float* target;  ///< [R, C]
  float* error;         ///< [R, C] decoded value − target
  std::int8_t* code;    ///< [R, C]
  /// [R, C / block]; [R, C / super-block], exact fp16 numbers; zeros in a format without mins
  std::int8_t *scale, *min;
  float *d, *dmin;
  std::int64_t cols;
  Numbers numbers;  ///< of the format
};

/// The rows of a launch: row k is index[k], or first + k · stride.
struct Rows {
  const std::int32_t* index;
  std::int64_t first, stride, n;
};

/// What a launch proposes, by k. W: columns of a proposal, a block or a super-block.
struct Proposal {
  std::int8_t *code, *scale, *min;  ///< [n, W], [n, W / block], [n, W / block]
  float *d, *dmin;                  ///< [n]
  /// [n, W] change of the decoded values; [n] change of the row's objective
  float *delta, *gain;
};

/// Steps of the candidates (method.h) in sets of 32, the pair itself first.
struct Offsets {
  const float *flip, *up, *min_up;  ///< [n_sets · 32]
  int n_sets;
};

/// Launches for one device and shape: `on_gpu` false runs them here. A GPU launch returns at once.
template <class F>
struct Launcher {
  bool on_gpu = false;
  int n_threads = 0;

  /// Error feedback with live scales over block b. tau [R, C]: the target as compensated so far; u
  /// [block, block]: its part of U; error [n, block] out, to be pushed on to the columns behind.
  void start_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* tau,
                   const float* u, const Offsets& offsets, float* error) const;
  /// Codes, then (scale, min), or d where there are no scales, of block b. m [n, block]: half the
  /// gradient; factors [buckets, kFactorFloats]; bucket [R] or nullptr.
  void propose_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* m,
                     const float* factors, const std::int32_t* bucket, const Offsets& offsets,
                     bool scale_search, const Proposal& out) const;
  /// d and dmin of super-block s, in a format with scales. m [n, S]; factors
  /// [buckets, S / block, kFactorFloats]; h [buckets, S, S], S columns of a super-block.
  void propose_super(const Cells& cells, const Rows& rows, std::int64_t s, const float* m,
                     const float* factors, const float* h, const std::int32_t* bucket,
                     const Offsets& offsets, const Proposal& out) const;
  /// Writes the accepted proposals of width W at column `column` into the cells; the delta of the
  /// others becomes 0. accept: [n].
  void commit(const Cells& cells, const Rows& rows, std::int64_t column, int width,
              const std::uint8_t* accept, const Proposal& proposal) const;
  /// error = decoded value − target.
  void decode(const Cells& cells, const Rows& rows) const;
};

}  // namespace spectralquant::quantize::warp
