#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/model/model.h"

namespace spectralquant::model {
namespace {

// Rows decoded by one task: enough work for a thread, small enough to spread a matrix over all of
// them.
constexpr std::uint64_t kValuesPerTask = 1 << 18;

std::vector<std::int64_t> torch_shape(const gguf::Tensor& tensor) {
  std::vector<std::int64_t> shape(tensor.shape.begin(),
                                  tensor.shape.begin() + std::max(1u, tensor.n_dims));
  std::reverse(shape.begin(), shape.end());
  return shape;
}

torch::Tensor decode(const gguf::Tensor& tensor) {
  auto values = torch::empty(torch_shape(tensor), torch::kFloat32);
  auto* out = values.data_ptr<float>();
  const auto rows_per_task =
      std::max<std::uint64_t>(1, kValuesPerTask / std::max<std::uint64_t>(1, tensor.n_cols()));
  const auto n_tasks = (tensor.n_rows() + rows_per_task - 1) / rows_per_task;
  parallel_for(n_tasks, at::get_num_threads(), [&](std::size_t task) {
    const auto first = task * rows_per_task;
    gguf::decode(tensor, first, std::min(rows_per_task, tensor.n_rows() - first),
                 out + first * tensor.n_cols());
  });
  return values;
}

}  // namespace

Weights::Weights(const gguf::File& file, torch::Device device, torch::Dtype dtype)
    : file_(file), device_(device), dtype_(dtype) {}

torch::Tensor Weights::get(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (const auto it = overrides_.find(name); it != overrides_.end()) return it->second;
  if (const auto it = cache_.find(name); it != cache_.end()) return it->second;
  torch::NoGradGuard no_grad;
  const auto& tensor = file_.require(name);
  // Vectors (norms, decay, biases) take part in float32 sums and cost nothing: they keep their
  // precision.
  auto value = decode(tensor).to(device_, tensor.n_dims <= 1 ? torch::kFloat32 : dtype_);
  cache_.emplace(name, value);
  return value;
}

bool Weights::has(const std::string& name) const { return file_.find(name) != nullptr; }

void Weights::set(const std::string& name, torch::Tensor value) {
  const auto expected = torch_shape(file_.require(name));
  if (!value.defined() || value.sizes() != torch::IntArrayRef(expected)) {
    throw bad_input(fmt::format("a value of shape [{}] was set for {}, which has [{}]",
                                value.defined() ? fmt::format("{}", fmt::join(value.sizes(), ", "))
                                                : "undefined",
                                name, fmt::join(expected, ", ")),
                    file_.path());
  }
  const std::lock_guard lock(mutex_);
  overrides_.insert_or_assign(name, value.to(device_));
}

void Weights::reset(const std::string& name) {
  const std::lock_guard lock(mutex_);
  overrides_.erase(name);
}

void Weights::release(std::string_view prefix) {
  const std::lock_guard lock(mutex_);
  auto it = cache_.lower_bound(prefix);
  while (it != cache_.end() && it->first.starts_with(prefix)) it = cache_.erase(it);
}

}  // namespace spectralquant::model
