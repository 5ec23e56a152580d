#include "spectralquant/quantize/quadratic.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/quantize/row_solver.h"
#include "spectralquant/quantize/whole_tiles.h"

namespace spectralquant::quantize {
namespace {

std::string shape_of(const torch::Tensor& tensor) {
  std::string text = "[";
  for (std::int64_t i = 0; i < tensor.dim(); ++i)
    text += fmt::format("{}{}", i ? ", " : "", tensor.size(i));
  return text + "]";
}

/// float32, contiguous, on the CPU, finite, of the expected shape.
torch::Tensor checked(const torch::Tensor& tensor, const char* name,
                      std::vector<std::int64_t> shape) {
  if (tensor.sizes() != torch::IntArrayRef(shape)) {
    std::string expected;
    for (const std::int64_t n : shape)
      expected += fmt::format("{}{}", expected.empty() ? "" : ", ", n);
    throw bad_input(fmt::format("{} is {}, expected [{}]", name, shape_of(tensor), expected),
                    "the problem given to the solver",
                    "give moments of the same matrix as the target");
  }
  const torch::Tensor result = tensor.detach().to(torch::kCPU, torch::kFloat).contiguous();
  const float* data = result.data_ptr<float>();
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    if (!std::isfinite(data[i])) {
      throw bad_input(fmt::format("{} holds NaN or infinity", name),
                      fmt::format("value {} of {}", i, result.numel()),
                      "check the model's weights and the text of the calibration");
    }
  }
  return result;
}

/// A square moment matrix, made exactly symmetric.
torch::Tensor checked_moment(const torch::Tensor& tensor, const char* name, std::int64_t n) {
  torch::Tensor result = checked(tensor, name, {n, n});
  const torch::Tensor transposed = result.t();
  if (!torch::equal(result, transposed)) result = ((result + transposed) * 0.5).contiguous();
  const float* data = result.data_ptr<float>();
  for (std::int64_t i = 0; i < n; ++i) {
    if (data[i * n + i] < 0) {
      throw bad_input(fmt::format("{} has a negative value on its diagonal", name),
                      fmt::format("row {}", i), "a second moment is never negative");
    }
  }
  return result;
}

torch::Tensor checked_weights(const torch::Tensor& tensor, const char* name, std::int64_t n) {
  torch::Tensor result = checked(tensor, name, {n});
  for (std::int64_t i = 0; i < n; ++i) {
    if (result.data_ptr<float>()[i] < 0) {
      throw bad_input(fmt::format("{} is negative", name), fmt::format("value {}", i),
                      "a second moment or a frequency is never negative");
    }
  }
  return result;
}

}  // namespace

Quadratic::Quadratic(const Problem& problem) {
  if (!problem.target.defined() || problem.target.dim() != 2) {
    throw bad_input("the target is no matrix", "the problem given to the solver",
                    "give [rows, cols]");
  }
  rows_ = problem.target.size(0);
  cols_ = problem.target.size(1);
  const format::Grid& grid = *problem.grid;
  if (rows_ < 1 || cols_ < 1 || cols_ % grid.super_block != 0) {
    const std::string name = format::name_of(grid);
    throw bad_input(
        fmt::format("a matrix of {} rows and {} columns cannot be {}", rows_, cols_, name), {},
        fmt::format("{} needs a multiple of {} columns", name, grid.super_block));
  }
  target_ = checked(problem.target, "the target", {rows_, cols_});
  if (!problem.h.defined())
    throw bad_input("h is missing", "the problem given to the solver",
                    "give input moments [cols, cols] or [cols]");
  if (problem.c.defined() != problem.frequency.defined() ||
      (problem.c_target.defined() && !problem.c.defined())) {
    throw bad_input("frequency and c come together, and c_target only with them",
                    "the problem given to the solver", "give both or none");
  }
  diagonal_ = problem.h.dim() == 1;
  h_ = diagonal_ ? checked_weights(problem.h, "h", cols_) : checked_moment(problem.h, "h", cols_);
  if (problem.g.defined()) g_ = checked_moment(problem.g, "g", rows_);
  if (problem.c.defined()) {
    c_ = checked_moment(problem.c, "c", cols_);
    frequency_ = checked_weights(problem.frequency, "frequency", rows_);
    if (problem.c_target.defined())
      c_target_ = checked(problem.c_target, "c_target", {rows_, cols_});
    if (diagonal_) {  // the second term couples the columns anyway
      h_ = torch::diag(h_).contiguous();
      diagonal_ = false;
    }
  }
}

std::vector<float> Quadratic::h_diagonal() const {
  std::vector<float> result(cols_);
  for (std::int64_t i = 0; i < cols_; ++i) result[i] = diagonal_ ? h()[i] : h()[i * cols_ + i];
  return result;
}

std::vector<float> tiled(const float* matrix, std::int64_t n) {
  std::vector<float> result(n * n);
  for (std::int64_t j = 0; j < n; j += kTile) {
    for (std::int64_t i = 0; i < n; ++i)
      std::copy_n(matrix + i * n + j, kTile, result.data() + tiled_index(i, j, n));
  }
  return result;
}

std::vector<double> Quadratic::row_objectives(const format::GridMatrix& candidate,
                                              int n_threads) const {
  if (candidate.rows != rows_ || candidate.cols != cols_) {
    throw bad_input(fmt::format("the candidate is {} x {}, the target {} x {}", candidate.rows,
                                candidate.cols, rows_, cols_),
                    {}, "compare matrices of the same shape");
  }
  const Products& kernels = products();
  const std::int64_t rows = rows_, cols = cols_;
  std::vector<double> result(rows);
  // E and E·H of all rows are kept only when rows are coupled.
  std::vector<double> all_e, all_eh;
  if (two_sided()) all_e.resize(rows * cols), all_eh.resize(rows * cols);
  const std::int64_t bundles = (rows + kBundle - 1) / kBundle;
  const std::vector<float> tiled_h = diagonal_ ? std::vector<float>{} : tiled(h(), cols),
                           tiled_c = tied() ? tiled(c(), cols) : std::vector<float>{};
  auto times = [&](const double* e, int n, const std::vector<float>& matrix, double* out) {
    for (std::int64_t j = 0; j < cols; j += kTile) {
      kernels.multiply_exact(e, cols, n, cols, matrix.data() + j * cols, kTile, 0, kTile, out + j,
                             cols);
    }
  };
  parallel_for(static_cast<std::size_t>(bundles), n_threads, [&](std::size_t bundle) {
    const std::int64_t first = static_cast<std::int64_t>(bundle) * kBundle;
    const int n = static_cast<int>(std::min<std::int64_t>(kBundle, rows - first));
    std::vector<float> value(n * cols);
    std::vector<double> e(n * cols), product(n * cols);
    candidate.decode(first, n, value.data());
    for (std::int64_t i = 0; i < n * cols; ++i)
      e[i] = static_cast<double>(value[i]) - target()[first * cols + i];
    if (diagonal_) {
      for (std::int64_t i = 0; i < n * cols; ++i) product[i] = e[i] * h()[i % cols];
    } else {
      times(e.data(), n, tiled_h, product.data());
    }
    if (two_sided()) {
      std::copy(e.begin(), e.end(), all_e.begin() + first * cols);
      for (int r = 0; r < n; ++r) {
        for (std::int64_t j = 0; j < cols; j += kTile)
          std::copy_n(&product[r * cols + j], kTile, &all_eh[tiled_index(first + r, j, rows)]);
      }
    } else {
      for (int r = 0; r < n; ++r) {
        double sum = 0;
        for (std::int64_t i = r * cols; i < (r + 1) * cols; ++i) sum += e[i] * product[i];
        result[first + r] = sum;
      }
    }
    if (tied()) {
      for (std::int64_t i = 0; i < n * cols; ++i)
        e[i] = static_cast<double>(value[i]) - c_target()[first * cols + i];
      times(e.data(), n, tiled_c, product.data());
      for (int r = 0; r < n; ++r) {
        double sum = 0;
        for (std::int64_t i = r * cols; i < (r + 1) * cols; ++i) sum += e[i] * product[i];
        result[first + r] += frequency()[first + r] * sum;
      }
    }
  });
  if (two_sided()) {
    parallel_for(static_cast<std::size_t>(bundles), n_threads, [&](std::size_t bundle) {
      const std::int64_t first = static_cast<std::int64_t>(bundle) * kBundle;
      const int n = static_cast<int>(std::min<std::int64_t>(kBundle, rows - first));
      // Both factors are symmetric: what lies above the diagonal is counted twice below it.
      const std::int64_t depth = first + n;
      std::vector<double> weights(n * depth), product(n * cols);
      for (int r = 0; r < n; ++r) {
        for (std::int64_t k = 0; k <= first + r; ++k)
          weights[r * depth + k] = (k < first + r ? 2. : 1.) * g()[(first + r) * rows + k];
      }
      for (std::int64_t j = 0; j < cols; j += kTile) {
        kernels.multiply_double(weights.data(), depth, n, depth, all_eh.data() + j * rows, kTile, 0,
                                kTile, product.data() + j, cols);
      }
      for (int r = 0; r < n; ++r) {
        double sum = 0;
        for (std::int64_t i = 0; i < cols; ++i)
          sum += all_e[(first + r) * cols + i] * product[r * cols + i];
        result[first + r] += sum;
      }
    });
  }
  for (double& value : result) {
    if (!std::isfinite(value)) value = std::numeric_limits<double>::infinity();
  }
  return result;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

double objective(const Problem& problem, const format::GridMatrix& candidate) {
  const Quadratic checked(problem);
  if (checked.cols() % kTile == 0 || candidate.cols != checked.cols())
    return sum(checked.row_objectives(candidate, 0));
  const Quadratic whole(to_whole_tiles(problem));
  return sum(whole.row_objectives(with_columns(candidate, whole.cols()), 0));
}

}  // namespace spectralquant::quantize
