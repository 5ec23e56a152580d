#include "spectralquant/distribute/group.h"

#include <fmt/format.h>

#include <cstring>
#include <thread>

#include "spectralquant/distribute/transport.h"
#include "spectralquant/distribute/watch.h"

namespace spectralquant::distribute {
namespace {

Error lost(const Launch& launch, const std::string& what) {
  return Error(
      ErrorCode::kFailed, what, fmt::format("process {} of {}", launch.rank, launch.size),
      "start all processes again with the same command: the job continues from its work folder");
}

using namespace std::chrono_literals;

/// A connection breaks at once when its process dies; the Watch, which knows whose it was, needs
/// its patience.
constexpr auto kVerdictTime = 10s;

/// Process 0 takes the board with it: the others read there, four times a second, whose loss ends
/// them.
constexpr auto kLastWords = 1s;

}  // namespace

struct Group::Impl {
  Launch launch;
  MeetingPoint meeting;
  Watch watch;
  std::unique_ptr<Transport> transport;

  explicit Impl(const Launch& launch)
      : launch(launch),
        meeting(launch),
        watch(meeting.board(), launch.rank, launch.size,
              {.grace = std::chrono::seconds(kGraceSeconds)}) {}

  ~Impl() {
    if (!watch.loss()) return;
    if (transport) transport->abandon();
    if (launch.rank == 0) std::this_thread::sleep_for(kLastWords);
  }

  void check() const {
    if (const auto loss = watch.loss()) throw lost(launch, *loss);
  }

  template <typename Operation>
  void together(const Operation& operation) {
    check();
    try {
      operation([this] { check(); });
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      const auto loss = watch.wait_for_loss(kVerdictTime);
      if (loss) throw lost(launch, *loss);
      const std::string what = error.what();
      watch.report(
          fmt::format("process {} of {} lost the connection to another", launch.rank, launch.size));
      throw lost(launch, "the connection to another process was lost: " + without_backtrace(what));
    }
  }
};

Group Group::join(const Launch& launch, torch::Device device) {
  Group group;
  if (launch.size <= 1) return group;
  group.impl_ = std::make_shared<Impl>(launch);
  group.impl_->together([&](const auto&) {
    group.impl_->transport = std::make_unique<Transport>(group.impl_->meeting, launch, device);
  });
  return group;
}

int Group::rank() const { return impl_ ? impl_->launch.rank : 0; }
int Group::size() const { return impl_ ? impl_->launch.size : 1; }

int Group::local_rank() const { return impl_ ? impl_->launch.local_rank : 0; }

void Group::sum(torch::Tensor& tensor) const {
  if (impl_) impl_->together([&](const auto& waiting) { impl_->transport->sum(tensor, waiting); });
}

void Group::broadcast(torch::Tensor& tensor, int root) const {
  if (impl_)
    impl_->together(
        [&](const auto& waiting) { impl_->transport->broadcast(tensor, root, waiting); });
}

std::string Group::broadcast(std::string bytes, int root) const {
  if (!impl_) return bytes;
  torch::Tensor size = torch::full({1}, static_cast<std::int64_t>(bytes.size()), torch::kInt64);
  broadcast(size, root);
  torch::Tensor body = torch::empty({size.item<std::int64_t>()}, torch::kUInt8);
  if (body.numel() == 0) return {};
  if (rank() == root) std::memcpy(body.data_ptr(), bytes.data(), bytes.size());
  broadcast(body, root);
  bytes.assign(static_cast<const char*>(body.data_ptr()), static_cast<std::size_t>(body.numel()));
  return bytes;
}

void Group::barrier() const {
  torch::Tensor one = torch::ones({1}, torch::kInt64);
  sum(one);
}

std::pair<std::size_t, std::size_t> Group::share(std::size_t n, int rank) const {
  const auto r = static_cast<std::size_t>(rank), s = static_cast<std::size_t>(size());
  return {n * r / s, n * (r + 1) / s};
}

void Group::check() const {
  if (impl_) impl_->check();
}

void Group::when_lost(std::function<void(const Error&)> end) const {
  if (!impl_) return;
  impl_->watch.when_lost([end = std::move(end), launch = impl_->launch](const std::string& loss) {
    end(lost(launch, loss));
  });
}

void Group::fail(const std::string& reason) const {
  if (impl_)
    impl_->watch.report(
        fmt::format("process {} of {} failed: {}", impl_->launch.rank, impl_->launch.size, reason));
}

void Group::leave() {
  if (!impl_) return;
  barrier();
  impl_->watch.stop();
  impl_->transport.reset();
  impl_->meeting.part();
  impl_.reset();
}

}  // namespace spectralquant::distribute
