#pragma once
#include <torch/torch.h>

#include <string>

namespace spectralquant::pipeline {

/// The device of that name. "cuda" is the accelerator of this process's number on its machine: 0
/// for one process alone.
torch::Device device_of(const std::string& name, int local_rank);

}  // namespace spectralquant::pipeline
