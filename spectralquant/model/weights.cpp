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

torch::Tensor Weights::get(const MatrixId& id) {
  const std::lock_guard lock(mutex_);
  if (const auto it = overrides_.find(id); it != overrides_.end()) return it->second;
  if (const auto it = cache_.find(id); it != cache_.end()) return it->second;
  torch::NoGradGuard no_grad;
  const auto& tensor = file_.require(id.tensor);
  // Vectors (norms, decay, biases) take part in float32 sums and cost nothing: they keep their
  // precision.
  torch::Tensor values;
  if (id.slice == MatrixId::kWhole) {
    values = decode(tensor);
    gguf::leave_memory(tensor, 0, tensor.n_rows());
  } else {
    const gguf::Matrix matrix = gguf::require_matrix(file_, id);
    values = decode(matrix);
    gguf::leave_memory(tensor, matrix.first_row(), static_cast<std::uint64_t>(matrix.rows()));
  }
  const auto value = values.to(device_, tensor.n_dims <= 1 ? torch::kFloat32 : dtype_);
  cache_.emplace(id, value);
  return value;
}

bool Weights::has(const std::string& tensor) const { return file_.find(tensor) != nullptr; }

void Weights::set(const MatrixId& id, const torch::Tensor& value) {
  auto expected = torch_shape(file_.require(id.tensor));
  if (id.slice != MatrixId::kWhole) {
    const gguf::Matrix matrix = gguf::require_matrix(file_, id);
    expected = {matrix.rows(), matrix.cols()};
  }
  if (!value.defined() || value.sizes() != torch::IntArrayRef(expected)) {
    throw bad_input(fmt::format("a value of shape [{}] was set for {}, which has [{}]",
                                value.defined() ? fmt::format("{}", fmt::join(value.sizes(), ", "))
                                                : "undefined",
                                id.text(), fmt::join(expected, ", ")),
                    file_.path());
  }
  const torch::Tensor on_device = value.to(device_);
  const std::lock_guard lock(mutex_);
  if (id.slice == MatrixId::kWhole && expected.size() > 2) {
    const torch::Tensor slices = on_device.reshape({-1, value.size(-2), value.size(-1)});
    for (std::int64_t i = 0; i < slices.size(0); ++i)
      overrides_.insert_or_assign(MatrixId(id.tensor, i), slices[i]);
  } else {
    overrides_.insert_or_assign(id, on_device);
  }
}

void Weights::reset(const MatrixId& id) {
  const std::lock_guard lock(mutex_);
  if (id.slice != MatrixId::kWhole) {
    overrides_.erase(id);
    return;
  }
  auto it = overrides_.lower_bound(id);  // a stack: all its slices
  while (it != overrides_.end() && it->first.tensor == id.tensor) it = overrides_.erase(it);
}

void Weights::release(std::string_view prefix) {
  const std::lock_guard lock(mutex_);
  auto it = cache_.lower_bound(std::string(prefix));
  while (it != cache_.end() && it->first.tensor.starts_with(prefix)) it = cache_.erase(it);
}

}  // namespace spectralquant::model
