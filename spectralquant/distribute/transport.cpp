#include "spectralquant/distribute/transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/distribute/group.h"

// PyTorch's own libtorch comes without the headers of Gloo and NCCL that c10d's need.
#if defined(USE_C10D_GLOO) && __has_include(<gloo/rendezvous/store.h>)
#define SPECTRALQUANT_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#if defined(USE_C10D_NCCL) && __has_include(<nccl.h>)
#define SPECTRALQUANT_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace spectralquant::distribute {
namespace {

using namespace std::chrono_literals;

/// One process may solve for hours while the others wait. Who is lost is the Watch's business, not
/// a timeout's.
constexpr std::chrono::milliseconds kOperationTimeout = 240h;

/// How long process 0 stays for the others to leave.
constexpr std::chrono::milliseconds kPartingTime = 10s;

c10::intrusive_ptr<c10d::Store> connect(const Launch& launch, bool serve) {
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = serve;
  options.numWorkers = static_cast<std::size_t>(launch.size);
  options.waitWorkers = false;  // MeetingPoint counts them itself, and can say how many came
  options.timeout = std::chrono::minutes(kMeetingMinutes);
  return c10::make_intrusive<c10d::PrefixStore>(
      launch.prefix, c10::make_intrusive<c10d::TCPStore>(launch.address, options));
}

}  // namespace

struct MeetingPoint::Impl {
  Launch launch;
  c10::intrusive_ptr<c10d::Store> store;
};

MeetingPoint::MeetingPoint(const Launch& launch) : impl_(std::make_unique<Impl>()) {
  impl_->launch = launch;
  const std::string place = fmt::format("process {} of {}, meeting point {}:{}", launch.rank,
                                        launch.size, launch.address, launch.port);
  const auto fail = [&](const std::string& problem) {
    return Error(ErrorCode::kFailed, problem, place,
                 "check that all processes were started, that MASTER_ADDR is the host of process "
                 "0, and that MASTER_PORT is free there and open to the others");
  };
  try {
    impl_->store = connect(launch, launch.rank == 0 && !launch.store_runs_elsewhere);
    std::int64_t arrived = impl_->store->add("arrived", 1);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(kMeetingMinutes);
    while (arrived < launch.size) {
      if (std::chrono::steady_clock::now() > deadline)
        throw fail(fmt::format("{} of {} processes arrived", arrived, launch.size));
      std::this_thread::sleep_for(20ms);
      arrived = impl_->store->add("arrived", 0);
    }
    if (arrived > launch.size)
      throw fail(
          fmt::format("{} processes arrived, {} were expected: another job uses this meeting point",
                      arrived, launch.size));
  } catch (const std::exception& error) {
    if (dynamic_cast<const Error*>(&error)) throw;
    throw fail("the processes of this job do not meet: " + without_backtrace(error.what()));
  }
}

MeetingPoint::~MeetingPoint() = default;

Board MeetingPoint::board() const {
  const auto store = connect(impl_->launch, false);
  return {.add = [store](const std::string& key,
                         std::int64_t amount) { return store->add(key, amount); },
          .write =
              [store](const std::string& key, const std::string& text) {
                store->set(key, std::vector<std::uint8_t>(text.begin(), text.end()));
              },
          .read = [store](const std::string& key) -> std::optional<std::string> {
            if (!store->check({key})) return std::nullopt;
            const auto bytes = store->get(key);
            return std::string(bytes.begin(), bytes.end());
          }};
}

void MeetingPoint::part() const {
  const auto deadline = std::chrono::steady_clock::now() + kPartingTime;
  try {
    std::int64_t gone = impl_->store->add("gone", 1);
    while (impl_->launch.rank == 0 && gone < impl_->launch.size &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(10ms);
      gone = impl_->store->add("gone", 0);
    }
  } catch (const std::exception&) {  // the job is done; nothing is lost with the store
  }
}

struct Transport::Impl {
#if defined(SPECTRALQUANT_GLOO)
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
#endif
#if defined(SPECTRALQUANT_NCCL)
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl;
#endif
  torch::Device device;

  explicit Impl(torch::Device on) : device(on) {}

#if defined(SPECTRALQUANT_NCCL)
  ~Impl() {
    const auto shut_down = [](auto& group) {
      // newer versions complain without it
      if constexpr (requires { group.shutdown(); }) group.shutdown();
    };
    if (nccl) shut_down(*nccl);
  }
#endif

  /// Where a tensor has to be to travel.
  torch::Device carrier(torch::Device of) const {
#if defined(SPECTRALQUANT_NCCL)
    if (nccl && of.is_cuda()) return of;
#endif
#if defined(SPECTRALQUANT_GLOO)
    if (gloo) return torch::kCPU;
#endif
    return device;
  }

  /// Starts operation(process group, tensors) on the group for these tensors and waits for it.
  template <typename Operation>
  void run(torch::Tensor& tensor, const Transport::WhileWaiting& waiting,
           const Operation& operation) {
    torch::NoGradGuard no_grad;
    const torch::Device on = carrier(tensor.device());
    const bool travels_itself = on.type() == tensor.device().type() && tensor.is_contiguous();
    std::vector<torch::Tensor> tensors{travels_itself ? tensor : tensor.to(on).contiguous()};
    [[maybe_unused]] const auto wait = [&](const auto& work) {
      for (auto pause = 20us; !work->isCompleted();
           pause = std::min<std::chrono::microseconds>(2 * pause, 1ms)) {
        waiting();
        std::this_thread::sleep_for(pause);
      }
      work->wait();
    };
    if (on.is_cuda()) {
#if defined(SPECTRALQUANT_NCCL)
      wait(operation(*nccl, tensors));
#endif
    } else {
#if defined(SPECTRALQUANT_GLOO)
      wait(operation(*gloo, tensors));
#endif
    }
    if (!travels_itself) tensor.copy_(tensors[0]);
  }
};

#if defined(SPECTRALQUANT_GLOO)
namespace {

auto make_gloo(const c10::intrusive_ptr<c10d::Store>& store, const Launch& launch) {
  auto options = c10d::ProcessGroupGloo::Options::create();
  options->timeout = kOperationTimeout;
  const bool one_machine = launch.address == "127.0.0.1" || launch.address == "localhost";
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");  // c10d's own name for it
  options->devices.push_back(
      interface && *interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
      : one_machine           ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                              : c10d::ProcessGroupGloo::createDefaultDevice());
  return c10::make_intrusive<c10d::ProcessGroupGloo>(
      c10::make_intrusive<c10d::PrefixStore>("gloo", store), launch.rank, launch.size, options);
}

}  // namespace
#endif

Transport::Transport(const MeetingPoint& meeting, const Launch& launch, torch::Device device)
    : impl_(std::make_unique<Impl>(device)) {
  bool connected = false;
#if defined(SPECTRALQUANT_GLOO)
  impl_->gloo = make_gloo(meeting.impl().store, launch);
  connected = true;
#endif
#if defined(SPECTRALQUANT_NCCL)
  if (device.is_cuda()) {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = kOperationTimeout;
    const auto store = c10::make_intrusive<c10d::PrefixStore>("nccl", meeting.impl().store);
    impl_->nccl =
        c10::make_intrusive<c10d::ProcessGroupNCCL>(store, launch.rank, launch.size, options);
    connected = true;
  }
#endif
  if (!connected) {
    throw Error(ErrorCode::kBadUsage,
                fmt::format("this build cannot connect processes that compute on {}", device.str()),
                {},
                "build with the headers of Gloo (Debian: libgloo-dev) or, for GPUs, of NCCL; or "
                "start a single process");
  }
}

Transport::~Transport() = default;

void Transport::sum(torch::Tensor& tensor, const WhileWaiting& waiting) {
  impl_->run(tensor, waiting, [](auto& group, std::vector<torch::Tensor>& tensors) {
    return group.allreduce(tensors);
  });
}

void Transport::broadcast(torch::Tensor& tensor, int root, const WhileWaiting& waiting) {
  impl_->run(tensor, waiting, [root](auto& group, std::vector<torch::Tensor>& tensors) {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return group.broadcast(tensors, options);
  });
}

void Transport::abandon() {
  // reachable to the end: nothing is destroyed, nothing leaks
  static auto* const abandoned = new std::vector<std::unique_ptr<Impl>>;
  abandoned->push_back(std::move(impl_));
}

}  // namespace spectralquant::distribute
