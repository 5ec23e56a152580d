#include "spectralquant/quantize/tensor_factor.h"

namespace spectralquant::quantize {

using torch::Tensor;

Tensor inverse_factor(Tensor a) {
  for (double more = 1e-6;; more *= 10) {
    try {
      const Tensor b = torch::linalg_cholesky(a.flip({-2, -1})).flip({-2, -1});  // a = b bᵀ
      const Tensor u = torch::linalg_solve_triangular(
          b, torch::eye(a.size(-1), a.options()).expand_as(a), /*upper=*/true, /*left=*/true,
          /*unitriangular=*/false);
      if (u.isfinite().all().item<bool>()) return u;
    } catch (const c10::Error&) {
    }
    TORCH_CHECK(more < 1e6, "a moment matrix cannot be factored");
    a = a.clone();
    a.diagonal(0, -2, -1).add_(more * a.diagonal(0, -2, -1).mean() + 1e-12);
  }
}

}  // namespace spectralquant::quantize
