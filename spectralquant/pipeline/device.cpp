#include "spectralquant/pipeline/device.h"

#include "spectralquant/model/model.h"

namespace spectralquant::pipeline {

torch::Device device_of(const std::string& name, int local_rank) {
  const torch::Device device = model::parse_device(name);
  if (local_rank == 0 || !device.is_cuda() || device.has_index()) return device;
  return {torch::kCUDA, static_cast<torch::DeviceIndex>(
                            local_rank % static_cast<int>(torch::cuda::device_count()))};
}

}  // namespace spectralquant::pipeline
