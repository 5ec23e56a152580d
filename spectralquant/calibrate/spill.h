#pragma once
#include <torch/types.h>

#include <cstdint>
#include <string>

namespace spectralquant::calibrate {

/// Where tensors lie that do not have to be in memory.
///
/// Each gets a file of its own in the folder, without a name: it is gone when the last copy of the
/// tensor is, or the process.
///
/// Threads  const members may be called from any thread.
struct Spill {
  /// "": tensors stay where they are
  std::string folder = {};
  /// Streams and kept inputs of stages stay in memory up to this size, each of the two.
  std::uint64_t memory_bytes = std::uint64_t{1} << 30;

  /// Whether tensors of so many bytes in all are to be put() into files.
  bool wanted(std::uint64_t bytes) const { return !folder.empty() && bytes > memory_bytes; }

  /// The same values, mapped from a file; the tensor itself without a folder, or on an accelerator.
  /// Errors   Error(kBadInput) if the folder cannot be written to or the disk is full.
  torch::Tensor put(const torch::Tensor& tensor) const;

  /// A copy in memory of what put() returned, whose own pages leave memory again; without a folder
  /// the tensor itself.
  torch::Tensor take(const torch::Tensor& kept) const;
};

}  // namespace spectralquant::calibrate
