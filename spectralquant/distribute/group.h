#pragma once
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/distribute/launch.h"

namespace spectralquant::distribute {

/// The processes that work on one job, and what they do together.
///
/// A Group made by default is one process alone: every operation returns at once, no socket is
/// opened. Copies are one group. All processes call the same operations in the same order; each
/// waits for all others. Tensors on an accelerator travel through NCCL where the build has it, all
/// others through Gloo.
///
/// A process that is lost (killed, failed, machine gone) ends the others: they look after each
/// other in the background, and the next operation or check() throws Error(kFailed) which names the
/// process. Whoever does not come to one within kGraceSeconds is ended by the function given to
/// when_lost().
///
/// Errors   Error(kFailed) when a process is lost, or the processes do not find each other.
class Group {
 public:
  Group() = default;

  /// Meets the other processes.  `device`: what the job computes on.
  /// Errors   Error(kFailed) if they do not all arrive within kMeetingMinutes; Error(kBadUsage) if
  ///          the build cannot connect processes.
  static Group join(const Launch& launch, torch::Device device);

  int rank() const;
  int size() const;
  int local_rank() const;  ///< counted on this machine: which of its accelerators is this process's
  bool alone() const { return !impl_; }
  bool leads() const { return rank() == 0; }  ///< the one that writes and prints

  /// Σ over processes, in place, the same bits everywhere; any floating or integer type
  void sum(torch::Tensor& tensor) const;
  void broadcast(torch::Tensor& tensor, int root) const;  ///< root's values, in place
  std::string broadcast(std::string bytes, int root) const;
  void barrier() const;

  /// The items [first, second) of n that are this process's: contiguous, sizes differ by one at
  /// most.
  std::pair<std::size_t, std::size_t> share(std::size_t n) const { return share(n, rank()); }
  /// those of another process
  std::pair<std::size_t, std::size_t> share(std::size_t n, int rank) const;

  /// Throws if a process was lost.
  void check() const;
  /// `end` is called, from another thread, with the error if this process does not notice a loss
  /// itself. It must not return.
  void when_lost(std::function<void(const Error&)> end) const;

  /// Tells the others that this process failed, and why: they end as well.
  void fail(const std::string& reason) const;
  /// The job is done: waits for the others and parts from them.
  void leave();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// launchers of large jobs need a while to start everyone
inline constexpr int kMeetingMinutes = 5;
inline constexpr int kGraceSeconds = 10;

}  // namespace spectralquant::distribute
