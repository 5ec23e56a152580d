#pragma once
#include <cstdint>
#include <string>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// What a look at every value of a tensor finds. Values are counted from 0, row after row.
struct ValueScan {
  std::uint64_t n_not_finite = 0;  ///< NaNs and infinities
  std::uint64_t first = 0;         ///< the first of them, if there is one
  bool first_is_nan = false;
  std::uint64_t zeros_begin = 0;  ///< the longest run of zeros
  std::uint64_t n_zeros = 0;
  float largest = 0;  ///< magnitude; of finite values if all are
};

/// Decodes every value of a tensor. Integer tensors have nothing to find.
///
/// Threads  pieces in parallel, the same result for any n_threads (< 1: all there are).
/// Errors   Error(kBadInput) when the type cannot be decoded.
ValueScan scan_values(const Tensor& tensor, int n_threads = 0, const std::string& file_path = {});

/// "blk.0.ffn_up.weight holds NaN at row 3, column 17" of a scan with a value that is not finite.
std::string not_finite_text(const Tensor& tensor, const ValueScan& scan);

/// True for a tensor with a run of zeros that weights hardly have: a quarter of the tensor, or
/// 2^20 values.
bool is_suspiciously_zero(const Tensor& tensor, const ValueScan& scan);

/// "blk.0.ffn_up.weight is zero from row 3 to row 9 (1792 of 65536 values)".
std::string zeros_text(const Tensor& tensor, const ValueScan& scan);

}  // namespace spectralquant::gguf
