#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/types.h"

namespace spectralquant::pipeline {

/// Bytes of values in a type that needs no search: F32, F16, BF16 (rounded to nearest even) or
/// Q8_0.
///
/// Shapes   values: n floats; for Q8_0 n is a multiple of 32.
/// Errors   Error(kBadUsage) for any other type.
/// Source   Q8_0: ggml-quants.c, quantize_row_q8_0_ref.
std::vector<std::byte> encode(gguf::Type type, const float* values, std::size_t n);

/// A tensor in another type, piece by piece: `body` gets the byte offset of a piece and its bytes.
///
/// Errors   Error(kBadInput) naming tensor, row, column and value when the type cannot hold a
///          value: F16 ends at 65,504, Q8_0 at 8,319,008.
void encode_tensor(const gguf::Tensor& source, gguf::Type type, const std::string& file_path,
                   const std::function<void(std::uint64_t offset_bytes,
                                            const std::vector<std::byte>& bytes)>& body);

}  // namespace spectralquant::pipeline
