#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "spectralquant/gguf/types.h"

namespace spectralquant::pipeline {

/// Bytes of values in a type that needs no search: F32, F16, BF16 (rounded to nearest even) or
/// Q8_0.
///
/// Shapes   values: n floats; for Q8_0 n is a multiple of 32.
/// Errors   Error(kBadUsage) for any other type.
/// Source   Q8_0: ggml-quants.c, quantize_row_q8_0_ref.
std::vector<std::byte> encode(gguf::Type type, const float* values, std::size_t n);

}  // namespace spectralquant::pipeline
