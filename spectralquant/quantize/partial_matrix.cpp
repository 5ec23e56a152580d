#include "spectralquant/quantize/partial_matrix.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/quantize/grid_tensors.h"

namespace spectralquant::quantize {

using torch::Tensor;

PartialMatrix::PartialMatrix(const format::Grid& of, Tensor w) : grid(&of), weight(std::move(w)) {
  const std::int64_t rows = weight.size(0), cols = weight.size(1);
  if (cols % of.super_block != 0) {
    throw bad_input(
        fmt::format("a matrix of {} rows and {} columns cannot be {}", rows, cols,
                    format::name_of(of)),
        {}, fmt::format("{} needs a multiple of {} columns", format::name_of(of), of.super_block));
  }
  const auto bytes = weight.options().dtype(torch::kInt8);
  code = torch::zeros({rows, cols}, bytes);
  scale = torch::zeros({rows, cols / of.block}, bytes);
  min = torch::zeros_like(scale);
  d = torch::zeros({rows, cols / of.super_block}, weight.options());
  dmin = torch::zeros_like(d);
  fixed = torch::zeros({cols}, bytes);
  if (!of.levels) return;
  const std::vector<float> levels(of.levels, of.levels + of.levels_count());
  level_of_code = torch::tensor(levels, weight.options().requires_grad(false));
}

bool PartialMatrix::all_fixed() const { return fixed.all().item<bool>(); }

Tensor PartialMatrix::decode() const {
  const auto by_block = [&](const Tensor& super, const Tensor& block) {
    return (super.unsqueeze(-1) * block.view({rows(), -1, grid->blocks()})).view({rows(), -1, 1});
  };
  const Tensor step = by_block(d, scale), offset = by_block(dmin, min);
  return (levels().view({rows(), -1, grid->block}) * step).sub_(offset).view({rows(), cols()});
}

Tensor PartialMatrix::levels() const {
  return grid->levels ? level_of_code.index({code.to(torch::kInt64)}).mul_(fixed) : code;
}

void PartialMatrix::put_decoded() {
  torch::NoGradGuard no_grad;
  weight.copy_(torch::where(fixed > 0, decode(), weight));
}

void PartialMatrix::stand_on(const format::GridMatrix& matrix) {
  GridTensors t = to_tensors(matrix, weight.device());
  code = t.code, scale = t.scale, min = t.min, d = t.d, dmin = t.dmin;
  fixed.fill_(1);
  put_decoded();
}

void PartialMatrix::release(const std::vector<std::int64_t>& columns) {
  const Tensor index = torch::tensor(columns, torch::kInt64).to(weight.device());
  fixed.index_fill_(0, index, 0);
  code.index_fill_(1, index, 0);
}

format::GridMatrix PartialMatrix::matrix() const {
  TORCH_CHECK(all_fixed(), "columns of a matrix are not fixed yet");
  return to_matrix(*grid, {code, scale, min, d, dmin});
}

}  // namespace spectralquant::quantize
