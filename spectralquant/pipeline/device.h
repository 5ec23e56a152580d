#pragma once
#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace spectralquant::pipeline {

/// The device of that name. "cuda" is the accelerator of this process's number on its machine: 0
/// for one process alone.
torch::Device device_of(const std::string& name, int local_rank);

/// Gives the thread that runs backward passes on an accelerator its context. Without one the first
/// matrix product there makes torch warn ("no current CUDA context") amid the progress.
void prepare_backward(torch::Device device);

/// The most memory that torch held of the accelerator since the process began; nullopt on a CPU.
std::optional<std::uint64_t> peak_device_bytes(torch::Device device);

}  // namespace spectralquant::pipeline
