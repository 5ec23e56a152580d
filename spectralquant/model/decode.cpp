#include "spectralquant/model/decode.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "spectralquant/core/parallel.h"

namespace spectralquant::model {
namespace {

// Rows decoded by one task: enough work for a thread, small enough to spread a matrix over all of
// them.
constexpr std::uint64_t kValuesPerTask = 1 << 18;

}  // namespace

std::vector<std::int64_t> torch_shape(const gguf::Tensor& tensor) {
  std::vector<std::int64_t> shape(tensor.shape.begin(),
                                  tensor.shape.begin() + std::max(1u, tensor.n_dims));
  std::reverse(shape.begin(), shape.end());
  return shape;
}

torch::Tensor decode(const gguf::Tensor& tensor) {
  return decode_rows(tensor, 0, tensor.n_rows()).view(torch_shape(tensor));
}

torch::Tensor decode(const gguf::Matrix& matrix) {
  return decode_rows(*matrix.tensor, matrix.first_row(), static_cast<std::uint64_t>(matrix.rows()));
}

torch::Tensor decode_rows(const gguf::Tensor& tensor, std::uint64_t first, std::uint64_t n) {
  const std::uint64_t n_cols = tensor.n_cols();
  torch::Tensor values = torch::empty(
      {static_cast<std::int64_t>(n), static_cast<std::int64_t>(n_cols)}, torch::kFloat32);
  float* const out = values.data_ptr<float>();
  const auto rows_per_task =
      std::max<std::uint64_t>(1, kValuesPerTask / std::max<std::uint64_t>(1, n_cols));
  const auto n_tasks = (n + rows_per_task - 1) / rows_per_task;
  parallel_for(n_tasks, at::get_num_threads(), [&](std::size_t task) {
    const auto begin = task * rows_per_task;
    gguf::decode(tensor, first + begin, std::min(rows_per_task, n - begin), out + begin * n_cols);
  });
  return values;
}

}  // namespace spectralquant::model
