#include "spectralquant/tune/replay.h"

#include <utility>

#ifdef SPECTRALQUANT_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace spectralquant::tune {

#ifdef SPECTRALQUANT_CUDA

struct Replay::Recording {
  at::cuda::CUDAGraph graph;
  torch::Tensor input;
  std::vector<torch::Tensor> results;

  Recording(const Function& function, const torch::Tensor& first) : input(first.clone()) {
    const c10::cuda::CUDAGuard device(first.device());
    // what the plain call left in the allocator's hands is what the recording will need
    c10::cuda::device_synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    graph.capture_begin();
    try {
      results = function(input);
    } catch (...) {
      try {
        graph.capture_end();
      } catch (const c10::Error&) {  // the recording is void already
      }
      throw;
    }
    graph.capture_end();
  }
  void play(const torch::Tensor& next) {
    const c10::cuda::CUDAGuard device(input.device());
    input.copy_(next);
    graph.replay();
  }
};

#else

struct Replay::Recording {};

#endif

Replay::Replay(Function function) : function_(std::move(function)) {}
Replay::~Replay() = default;

void Replay::forget() {
  recording_.reset();
  seen_.clear();
}

std::vector<torch::Tensor> Replay::operator()(const torch::Tensor& input) {
#ifdef SPECTRALQUANT_CUDA
  if (input.is_cuda()) return on_device(input);
#endif
  return function_(input);
}

#ifdef SPECTRALQUANT_CUDA

std::vector<torch::Tensor> Replay::on_device(const torch::Tensor& input) {
  if (seen_.empty()) {
    seen_ = input.sizes().vec();
    return function_(input);
  }
  if (!can_record_ || input.sizes() != torch::IntArrayRef(seen_)) return function_(input);
  if (!recording_) {
    try {
      recording_ = std::make_unique<Recording>(function_, input);
    } catch (const c10::Error& error) {
      TORCH_WARN("a training step cannot be recorded and is launched piece by piece: ",
                 error.what_without_backtrace());
      can_record_ = false;
      return function_(input);
    }
  }
  recording_->play(input);
  return recording_->results;
}

#endif

}  // namespace spectralquant::tune
