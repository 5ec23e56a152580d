#pragma once
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::quantize {

enum class Action { kSolve, kCopy, kToF32, kFallback };

struct PlannedTensor {
  const gguf::Tensor* source = nullptr;
  Action action = Action::kCopy;
  gguf::Type type = gguf::Type::F32;  ///< in the output
};

struct PlanOptions {
  std::optional<gguf::Type> fallback;  ///< for matrices whose columns are no multiple of 256: F16, BF16, F32 or Q8_0
};

/// What becomes of every tensor: matrices → Q4_K; what must stay in floating point → F32.
struct Plan {
  std::vector<PlannedTensor> tensors;  ///< in file order
  std::uint64_t output_bytes = 0;
  double file_bpw = 0;
  double matrix_bpw = 0;
  std::int64_t largest_cols = 0;
};

/// Errors   Error(kBadInput): a matrix cannot be Q4_K and no fallback is given (names the first one and how many),
///          the input is quantized already, it has no matrix at all.
Plan make_plan(const gguf::File& file, const PlanOptions& options = {});

}  // namespace spectralquant::quantize
