#include "spectralquant/pipeline/device.h"

#include <torch/cuda.h>

#include "spectralquant/model/model.h"

#ifdef SPECTRALQUANT_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace spectralquant::pipeline {

torch::Device device_of(const std::string& name, int local_rank) {
  const torch::Device device = model::parse_device(name);
  if (local_rank == 0 || !device.is_cuda() || device.has_index()) return device;
  return {torch::kCUDA, static_cast<torch::DeviceIndex>(
                            local_rank % static_cast<int>(torch::cuda::device_count()))};
}

void prepare_backward(torch::Device device) {
  if (!device.is_cuda()) return;
  const torch::AutoGradMode with_gradients(true);
  const torch::Tensor x =
      torch::ones({1}, torch::TensorOptions(device).dtype(torch::kFloat32)).requires_grad_();
  (x * x).sum().backward();  // its kernels make the context current on torch's own thread
}

std::optional<std::uint64_t> peak_device_bytes(torch::Device device) {
#ifdef SPECTRALQUANT_CUDA
  if (device.is_cuda()) {
    const auto index = device.has_index() ? device.index() : torch::DeviceIndex{0};
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index);
    // the first of its kinds is the sum of all
    return static_cast<std::uint64_t>(stats.reserved_bytes[0].peak);
  }
#endif
  return std::nullopt;
}

}  // namespace spectralquant::pipeline
