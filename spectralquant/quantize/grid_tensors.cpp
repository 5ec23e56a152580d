#include "spectralquant/quantize/grid_tensors.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/quantize/method.h"

namespace spectralquant::quantize {
namespace {

using torch::Tensor;

Tensor to_tensor(const std::vector<std::int8_t>& values, std::int64_t rows, torch::Device device) {
  Tensor out = torch::empty({rows, static_cast<std::int64_t>(values.size()) / rows}, torch::kInt8);
  std::copy(values.begin(), values.end(), out.data_ptr<std::int8_t>());
  return out.to(device);
}

Tensor to_tensor(const std::vector<std::uint16_t>& halves, std::int64_t rows,
                 torch::Device device) {
  Tensor out = torch::empty({rows, static_cast<std::int64_t>(halves.size()) / rows});
  std::transform(halves.begin(), halves.end(), out.data_ptr<float>(),
                 [](std::uint16_t bits) { return gguf::half_to_float(bits); });
  return out.nan_to_num(kLargestHalf).clamp(-kLargestHalf, kLargestHalf).to(device);
}

void take(const Tensor& from, std::vector<std::int8_t>& to) {
  const Tensor on_cpu = from.to(torch::kCPU).contiguous();
  std::copy_n(on_cpu.data_ptr<std::int8_t>(), to.size(), to.begin());
}

void take(const Tensor& from, std::vector<std::uint16_t>& to) {
  const Tensor on_cpu = from.to(torch::kCPU).contiguous();
  std::transform(on_cpu.data_ptr<float>(), on_cpu.data_ptr<float>() + to.size(), to.begin(),
                 [](float x) { return gguf::float_to_half(x); });
}

}  // namespace

Tensor round_to_half(const Tensor& x) {
  return x.clamp(-kLargestHalf, kLargestHalf).to(torch::kFloat16).to(torch::kFloat32);
}

GridTensors to_tensors(const format::GridMatrix& matrix, torch::Device device) {
  GridTensors out;
  out.code = to_tensor(matrix.codes, matrix.rows, device);
  out.scale = to_tensor(matrix.scales, matrix.rows, device);
  out.d = to_tensor(matrix.d, matrix.rows, device);
  out.min = matrix.mins.empty() ? torch::zeros_like(out.scale)
                                : to_tensor(matrix.mins, matrix.rows, device);
  out.dmin =
      matrix.dmin.empty() ? torch::zeros_like(out.d) : to_tensor(matrix.dmin, matrix.rows, device);
  return out;
}

format::GridMatrix to_matrix(const format::Grid& grid, const GridTensors& tensors) {
  format::GridMatrix out(grid, tensors.code.size(0), tensors.code.size(1));
  take(tensors.code, out.codes);
  take(tensors.scale, out.scales);
  take(tensors.min, out.mins);
  take(tensors.d, out.d);
  take(tensors.dmin, out.dmin);
  return out;
}

}  // namespace spectralquant::quantize
