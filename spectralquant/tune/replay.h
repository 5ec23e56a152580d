#pragma once
#include <torch/types.h>

#include <functional>
#include <memory>
#include <vector>

namespace spectralquant::tune {

/// A function of one tensor that is called again and again with inputs of one shape.
///
/// On a CUDA device the second call records what the function launches, and that and later calls
/// play the recording: thousands of small launches become one. Everything that the function reads
/// beside its input has to stay where it is in memory; the function must not wait for the device.
/// A function that cannot be recorded, an input of another shape, and a CPU get plain calls.
/// Threads  calls with tensors on a CPU may come from any thread; others from one at a time.
class Replay {
 public:
  using Function = std::function<std::vector<torch::Tensor>(const torch::Tensor& input)>;

  explicit Replay(Function function);
  ~Replay();

  /// Results of a played recording are overwritten by the next call. Undefined ones may be among
  /// them.
  std::vector<torch::Tensor> operator()(const torch::Tensor& input);

  /// Gives the recording's memory back; the next call but one records anew.
  void forget();

 private:
  struct Recording;
  std::vector<torch::Tensor> on_device(const torch::Tensor& input);

  Function function_;
  std::vector<std::int64_t> seen_;  ///< shape of the first call
  bool can_record_ = true;
  std::unique_ptr<Recording> recording_;
};

}  // namespace spectralquant::tune
