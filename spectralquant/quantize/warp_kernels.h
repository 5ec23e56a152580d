#pragma once
#include <cstdint>

/// The kernels of the batched solver: plain pointers, no torch, one row to 32 lanes.
///
/// One text (warp_kernels.inl) is compiled twice: for a GPU, where a lane is a thread of a warp,
/// and for the host, where the lanes are one vector. The host version is there to test the
/// device's: it is slower than row_solver.h.
namespace spectralquant::quantize::warp {

inline constexpr int kLanes = 32;   ///< columns of a block; candidates tried side by side
inline constexpr int kSuper = 256;  ///< columns that share d and dmin
/// h, u and uᵀ of a block, inverse(h) = uᵀ u
inline constexpr int kFactorFloats = 3 * kLanes * kLanes;

/// A matrix being solved; all pointers to memory of the device.
struct Cells {
  const float* target;               ///< [R, C]
  float* error;                      ///< [R, C] decoded value − target
  std::uint8_t *code, *scale, *min;  ///< [R, C], [R, C/32], [R, C/32]
  float *d, *dmin;                   ///< [R, C/256], exact fp16 numbers
  std::int64_t cols;
};

/// The rows of a launch: row k is index[k], or first + k · stride.
struct Rows {
  const std::int32_t* index;
  std::int64_t first, stride, n;
};

/// What a launch proposes, by k. W: columns of a proposal, 32 or 256.
struct Proposal {
  std::uint8_t *code, *scale, *min;  ///< [n, W], [n, W/32], [n, W/32]
  float *d, *dmin;                   ///< [n]
  /// [n, W] change of the decoded values; [n] change of the row's objective
  float *delta, *gain;
};

/// (scale, min) steps of the candidates: sets of 32 pairs, the pair (0, 0) first.
struct Offsets {
  const float *scale, *min;  ///< [n_sets · 32]
  int n_sets;
};

/// Launches for one device: `on_gpu` false runs them here. A GPU launch returns at once.
struct Launcher {
  bool on_gpu = false;
  int n_threads = 0;

  /// d, dmin, scales, mins and codes by least squares over 32 trial steps a block, weighted by
  /// importance [C] (nullptr: as llama.cpp without an imatrix).
  void round(const Cells& cells, const Rows& rows, const float* importance) const;
  /// Error feedback with live scales over block b. tau [R, C]: the target as compensated so far; u
  /// [32, 32]: its block of U; error [n, 32] out, to be pushed on to the columns behind.
  void start_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* tau,
                   const float* u, const Offsets& offsets, float* error) const;
  /// Codes, then (scale, min), of block b. m [n, 32]: half the gradient; factors [buckets,
  /// kFactorFloats]; bucket [R] or nullptr.
  void propose_block(const Cells& cells, const Rows& rows, std::int64_t b, const float* m,
                     const float* factors, const std::int32_t* bucket, const Offsets& offsets,
                     bool scale_search, const Proposal& out) const;
  /// d and dmin of super-block s. m [n, 256]; factors [buckets, 8, kFactorFloats]; h [buckets, 256,
  /// 256].
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
