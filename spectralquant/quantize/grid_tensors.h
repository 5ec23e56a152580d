#pragma once
#include <torch/types.h>

#include "spectralquant/format/grid_matrix.h"

namespace spectralquant::quantize {

/// The numbers of a GridMatrix as tensors on any device.
///
/// Shapes   code: [rows, cols]; scale, min: [rows, cols / block]; d, dmin:
///          [rows, cols / super-block]. code, scale, min: int8; d, dmin: float32, exact fp16
///          numbers. min and dmin are zeros in a format without mins.
struct GridTensors {
  torch::Tensor code, scale, min, d, dmin;
};

/// x as fp16 holds it, in float32; what is too large becomes the largest finite number.
torch::Tensor round_to_half(const torch::Tensor& x);

/// Copies. NaN and infinity in d and dmin become the largest finite number.
GridTensors to_tensors(const format::GridMatrix& matrix, torch::Device device);
format::GridMatrix to_matrix(const format::Grid& grid, const GridTensors& tensors);

}  // namespace spectralquant::quantize
