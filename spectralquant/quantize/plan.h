#pragma once
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::quantize {

enum class Action {
  kSolve,     ///< a matrix that is quantized
  kCopy,      ///< F32, or an integer table: its bytes as they are
  kToF32,     ///< not a matrix, F16 or BF16: converted, exactly
  kFallback,  ///< a matrix that cannot be: PlanOptions::fallback
};

struct PlannedTensor {
  const gguf::Tensor* source = nullptr;
  Action action = Action::kCopy;
  gguf::Type type = gguf::Type::F32;  ///< in the output
};

struct PlanOptions {
  /// for matrices whose columns are no whole super-blocks: F16, BF16, F32 or Q8_0
  std::optional<gguf::Type> fallback;
  gguf::Type type = gguf::Type::Q4_K;  ///< of all other matrices, one of format/formats.h
};

/// What becomes of every tensor: matrices → their type; what must stay in floating point → F32.
struct Plan {
  std::vector<PlannedTensor> tensors;  ///< in file order
  std::uint64_t output_bytes = 0;      ///< of all tensors, without header and padding
  double file_bpw = 0;                 ///< 8 · output_bytes / parameters, F32 tensors counted
  double matrix_bpw = 0;               ///< of the matrices alone: 4.5 for Q4_K without fallbacks
  std::int64_t largest_cols = 0;       ///< of the matrices that are quantized
};

/// Errors   Error(kBadInput): a matrix cannot be quantized and no fallback is given (names the
///          first one and how many), the input is quantized already, it has no matrix at all.
///          Error(kBadUsage): another type or fallback type.
Plan make_plan(const gguf::File& file, const PlanOptions& options = {});

}  // namespace spectralquant::quantize
