#pragma once
#include <cstddef>
#include <cstdint>

#include "spectralquant/gguf/types.h"

namespace spectralquant::gguf {

/// Decodes n_values consecutive values of one type, whole blocks, to float32. `in` needs no
/// alignment.
using RowDecoder = void (*)(const std::byte* in, std::uint64_t n_values, float* out);

/// Decoder of a type; nullptr when the type cannot be turned into floats.
RowDecoder find_decoder(Type type);

}  // namespace spectralquant::gguf
