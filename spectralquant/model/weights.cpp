#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/mapping.h"
#include "spectralquant/model/decode.h"
#include "spectralquant/model/model.h"

namespace spectralquant::model {

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
  gguf::leave_memory(tensor, 0, tensor.n_rows());
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
