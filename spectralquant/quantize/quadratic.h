#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "spectralquant/format/grid_matrix.h"
#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {

/// A Problem that passed all checks, laid out for the kernels: float32 on the CPU, contiguous,
/// moments symmetric.
///
/// Errors   Error(kBadInput): see solve().
class Quadratic {
 public:
  explicit Quadratic(const Problem& problem);

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  bool diagonal() const { return diagonal_; }  ///< h is [cols]; never together with c
  bool two_sided() const { return g_.defined(); }
  bool tied() const { return c_.defined(); }
  const float* target() const { return target_.data_ptr<float>(); }
  const float* h() const { return h_.data_ptr<float>(); }
  const float* g() const { return g_.defined() ? g_.data_ptr<float>() : nullptr; }
  const float* c() const { return c_.defined() ? c_.data_ptr<float>() : nullptr; }
  const float* frequency() const {
    return frequency_.defined() ? frequency_.data_ptr<float>() : nullptr;
  }
  const float* c_target() const {
    return c_target_.defined() ? c_target_.data_ptr<float>() : target();
  }
  std::vector<float> h_diagonal() const;

  /// Each row's share of the exact objective (with g: in some split); their sum, in order, is
  /// objective(). A row that decodes to NaN or infinity costs infinity. Whole tiles of columns.
  std::vector<double> row_objectives(const format::GridMatrix& candidate, int n_threads) const;

 private:
  std::int64_t rows_ = 0, cols_ = 0;
  bool diagonal_ = false;
  torch::Tensor target_, h_, g_, frequency_, c_, c_target_;
};

/// An [n × n] row-major matrix in the tiles of row_solver.h; n a multiple of 64.
std::vector<float> tiled(const float* matrix, std::int64_t n);

/// Sum in order.
double sum(const std::vector<double>& values);

}  // namespace spectralquant::quantize
