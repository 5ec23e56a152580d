#pragma once
#include <torch/types.h>

namespace spectralquant::quantize {

/// u, upper triangular, with inverse(a) = uᵀ u, by torch and on a's device. inverse_factor.h has
/// the row solver's own, whose bits depend on no library.
///
/// Where a is not (numerically) positive definite, the diagonal grows until it is.
/// Shapes   a: [.., n, n], symmetric, float64; only read. Returns [.., n, n].
torch::Tensor inverse_factor(torch::Tensor a);

}  // namespace spectralquant::quantize
