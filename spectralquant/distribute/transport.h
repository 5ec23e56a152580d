#pragma once
#include <torch/types.h>

#include <functional>
#include <memory>
#include <string>

#include "spectralquant/distribute/launch.h"
#include "spectralquant/distribute/watch.h"

namespace spectralquant::distribute {

/// The meeting point: c10d's TCPStore, run by process 0 or by torchrun.
class MeetingPoint {
 public:
  /// Errors   Error(kFailed) if the processes do not all arrive in time.
  explicit MeetingPoint(const Launch& launch);
  ~MeetingPoint();

  /// a connection of its own for each call: a Watch does not wait for what the job is waiting for
  Board board() const;
  /// process 0 stays until the others have left, so that none of them finds its store gone
  void part() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// c10d's process groups: Gloo for tensors on the CPU, NCCL for those on a GPU. The one place that
/// knows their headers.
class Transport {
 public:
  /// Called again and again while an operation waits for the other processes; may throw.
  using WhileWaiting = std::function<void()>;

  /// Errors   Error(kBadUsage) if the build can connect neither kind of device; what c10d throws.
  Transport(const MeetingPoint& meeting, const Launch& launch, torch::Device device);
  ~Transport();

  /// Sum over processes, in place.  tensor: contiguous, on any device.
  void sum(torch::Tensor& tensor, const WhileWaiting& waiting);
  void broadcast(torch::Tensor& tensor, int root, const WhileWaiting& waiting);

  /// Leaves its connections and threads as they are: they may wait for ever for a process that is
  /// gone.
  void abandon();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spectralquant::distribute
