#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "spectralquant/gguf/matrix.h"

namespace spectralquant::model {

/// The shape of a tensor as torch has it: rows first. At least one dimension.
std::vector<std::int64_t> torch_shape(const gguf::Tensor& tensor);

/// Values of a tensor of any type that can be decoded: float32, torch_shape(), a copy.
torch::Tensor decode(const gguf::Tensor& tensor);

/// Values of one matrix: float32, [rows, cols], a copy.
torch::Tensor decode(const gguf::Matrix& matrix);

/// Rows [first, first + n) of a tensor, those of a stack counted on: float32, [n, cols], a copy.
torch::Tensor decode_rows(const gguf::Tensor& tensor, std::uint64_t first, std::uint64_t n);

}  // namespace spectralquant::model
