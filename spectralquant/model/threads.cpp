#include "spectralquant/model/threads.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "spectralquant/core/parallel.h"

namespace spectralquant::model {
namespace {

// Single-core products of 384 x 384 matrices: reference BLAS 1 to 3 GFLOP/s, OpenBLAS above 20 on
// any x86-64 since 2013.
constexpr double kSlowFlopsPerSecond = 6e9;

double measure_flops_per_second() {
  torch::NoGradGuard no_grad;
  constexpr std::int64_t kSize = 384;
  const auto a = torch::ones({kSize, kSize});
  double best = 0;
  // the first run pays for warming up; a busy machine disturbs single ones
  for (int run = 0; run < 3; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    const auto c = torch::mm(a, a);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds.count());
  }
  return best;
}

void set_blas_threads(int n_threads) {
  if (auto* set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads")))
    set(n_threads);
  if (auto* set =
          reinterpret_cast<void (*)(long)>(dlsym(RTLD_DEFAULT, "bli_thread_set_num_threads")))
    set(n_threads);
}

}  // namespace

void set_threads(int n_threads) {
  if (n_threads < 1) n_threads = hardware_threads();
  at::set_num_threads(n_threads);
  set_blas_threads(n_threads);
}

bool blas_is_slow() {
  if (at::hasMKL()) return false;
  for (const char* symbol : {"openblas_get_config", "bli_info_get_version_str"}) {
    if (dlsym(RTLD_DEFAULT, symbol) != nullptr) return false;
  }
  return measure_flops_per_second() < kSlowFlopsPerSecond;
}

void for_each_in_order(std::size_t n, torch::Device device,
                       const std::function<std::function<void()>(std::size_t)>& work) {
  const int n_threads = at::get_num_threads();
  const std::size_t n_workers =
      device.is_cpu() ? std::min<std::size_t>(n, static_cast<std::size_t>(n_threads)) : 1;
  if (n_workers <= 1) {
    for (std::size_t i = 0; i < n; ++i) work(i)();
    return;
  }
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t next = 0, turn = 0;
  std::exception_ptr failure;
  const bool gradients = torch::GradMode::is_enabled();
  const auto run = [&] {
    at::set_num_threads(1);
    const torch::AutoGradMode mode(gradients);
    std::unique_lock lock(mutex);
    while (next < n && !failure) {
      const std::size_t i = next++;
      lock.unlock();
      try {
        const std::function<void()> finish = work(i);
        lock.lock();
        changed.wait(lock, [&] { return turn == i || failure; });
        if (failure) return;
        lock.unlock();
        finish();
        lock.lock();
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (!failure) failure = std::current_exception();
      }
      ++turn;
      changed.notify_all();
    }
  };
  set_blas_threads(1);
  std::vector<std::thread> workers;
  for (std::size_t t = 0; t < n_workers; ++t) workers.emplace_back(run);
  for (auto& worker : workers) worker.join();
  set_threads(n_threads);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace spectralquant::model
