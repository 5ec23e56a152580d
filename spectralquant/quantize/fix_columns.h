#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "spectralquant/quantize/partial_matrix.h"

namespace spectralquant::quantize {

/// What an error of a row costs: e H eᵀ, and for a tied embedding e (H + row_weight C) eᵀ.
struct ColumnMoments {
  torch::Tensor h;           ///< [cols, cols], E[x xᵀ] of the model as it is now
  torch::Tensor row_weight;  ///< [rows]; with c, or both undefined
  torch::Tensor c;           ///< [cols, cols]
};

struct FixOptions {
  double damping = 0.02;  ///< added to diag(H), as a share of its mean
  int radius = 3;         ///< (scale, min) are searched within ± this of the rounded ones
  /// d and dmin are this much larger than the blocks need now: those fixed later may have grown
  double headroom = 1.03;
};

/// Columns in the order in which they are best fixed: blocks of 32 by falling Σ diag(H).
std::vector<std::int64_t> column_order(const torch::Tensor& h);

/// Fixes some columns of matrices that read the same input, against all that is not fixed yet.
///
/// Column after column is rounded, and its error is made good by all columns behind it and by those
/// that stay free: rows of U, where (H of the free columns)⁻¹ = UᵀU, those to be fixed first. When
/// a block's first column is fixed, (scale, min) is chosen by running that feedback inside the
/// whole block for every candidate; d and dmin come from the rounded block scales when a
/// super-block's first column is fixed. With all columns at once this is the start of solve().
///
/// matrices of one format.
/// columns  not fixed yet, those of a block one after the other.
/// moments  row_weight has the rows of all matrices, in their order.
/// Source   GPTQ, arXiv 2210.17323; docs/method.md.
void fix_columns(const std::vector<PartialMatrix*>& matrices,
                 const std::vector<std::int64_t>& columns, const ColumnMoments& moments,
                 const FixOptions& options = {});

}  // namespace spectralquant::quantize
