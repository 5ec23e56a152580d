#include "spectralquant/model/threads.h"

#include <dlfcn.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>

#include "spectralquant/core/parallel.h"

namespace spectralquant::model {
namespace {

// Single-core products of 384 x 384 matrices: reference BLAS 1 to 3 GFLOP/s, OpenBLAS above 20 on any x86-64 since 2013.
constexpr double kSlowFlopsPerSecond = 6e9;

double measure_flops_per_second() {
  torch::NoGradGuard no_grad;
  constexpr std::int64_t kSize = 384;
  const auto a = torch::ones({kSize, kSize});
  double best = 0;
  for (int run = 0; run < 3; ++run) {  // the first run pays for warming up; a busy machine disturbs single ones
    const auto begin = std::chrono::steady_clock::now();
    const auto c = torch::mm(a, a);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds.count());
  }
  return best;
}

}  // namespace

void set_threads(int n_threads) {
  if (n_threads < 1) n_threads = hardware_threads();
  at::set_num_threads(n_threads);
  if (auto* set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))) set(n_threads);
  if (auto* set = reinterpret_cast<void (*)(long)>(dlsym(RTLD_DEFAULT, "bli_thread_set_num_threads"))) set(n_threads);
}

bool blas_is_slow() {
  if (at::hasMKL()) return false;
  for (const char* symbol : {"openblas_get_config", "bli_info_get_version_str"}) {
    if (dlsym(RTLD_DEFAULT, symbol) != nullptr) return false;
  }
  return measure_flops_per_second() < kSlowFlopsPerSecond;
}

}  // namespace spectralquant::model
