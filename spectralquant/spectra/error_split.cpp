#include "spectralquant/spectra/error_split.h"

#include <algorithm>

namespace spectralquant::spectra {
namespace {

/// Rows of a moment that are turned to float64 at once.
constexpr std::int64_t kStrip = 1024;

double total(const torch::Tensor& values) { return values.sum(torch::kFloat64).item<double>(); }

/// M a in float64. m: [n, n] or a diagonal [n]; a: [n, k] float64.
torch::Tensor apply(const torch::Tensor& m, const torch::Tensor& a) {
  if (m.dim() == 1) return m.to(torch::kFloat64).unsqueeze(1) * a;
  torch::Tensor out = torch::empty_like(a);
  for (std::int64_t first = 0; first < m.size(0); first += kStrip) {
    const std::int64_t last = std::min(first + kStrip, m.size(0));
    out.slice(0, first, last).copy_(m.slice(0, first, last).to(torch::kFloat64).mm(a));
  }
  return out;
}

double trace_of(const torch::Tensor& m) { return total(m.dim() == 1 ? m : m.diagonal()); }

/// Shares of rows of a [m, size] error in the top directions. weighted: M a of the other side's
/// moment; the cost is Σ weighted ∘ (a S).
TopShares shares(const Spectrum& spectrum, const torch::Tensor& a, const torch::Tensor& weighted,
                 double energy, double cost) {
  const torch::Tensor along = spectrum.coordinates(a);
  const std::int64_t k = spectrum.n_directions();
  const torch::Tensor values = torch::tensor(spectrum.eigenvalues, torch::kFloat64).slice(0, 0, k);
  const torch::Tensor energies = along.square().sum(0),
                      costs = (spectrum.coordinates(weighted) * along).sum(0) * values;
  TopShares out;
  for (std::size_t i = 0; i < kTopShares.size(); ++i) {
    const std::int64_t count = top_count(kTopShares[i], spectrum.size);
    if (count > k) continue;
    out.energy[i] = energy > 0 ? total(energies.slice(0, 0, count)) / energy : 0;
    out.cost[i] = cost > 0 ? total(costs.slice(0, 0, count)) / cost : 0;
  }
  return out;
}

}  // namespace

Cost Cost::of(const calibrate::MatrixSignal& signal, std::int64_t n_tokens) {
  const torch::Tensor frequency = signal.frequency.defined()
                                      ? calibrate::smoothed_frequency(signal.frequency, n_tokens)
                                      : torch::Tensor();
  if (!signal.h.defined()) return {signal.c, frequency, {}, {}, true};
  const bool tied = signal.c.defined() && frequency.defined();
  const double share = signal.n_tokens >= 0 && n_tokens > 0
                           ? static_cast<double>(signal.n_tokens) / static_cast<double>(n_tokens)
                           : 1;
  return {signal.h, signal.g, tied ? frequency : torch::Tensor(), tied ? signal.c : torch::Tensor(),
          false,    share};
}

ErrorSplit split_error(const torch::Tensor& weights, const torch::Tensor& decoded, const Cost& cost,
                       const MatrixSpectra& spectra) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(cost.complete(), "the error of a matrix cannot be weighed without H and G");
  const torch::Tensor w = weights.to(torch::kCPU, torch::kFloat64),
                      e = decoded.to(torch::kCPU, torch::kFloat64) - w;
  // [rows, cols], [cols, rows]
  const torch::Tensor ge = apply(cost.g, e), he = apply(cost.h, e.t().contiguous());
  ErrorSplit out;
  out.energy = total(e.square());
  if (const double all = total(w.square()); all > 0) out.relative_energy = out.energy / all;
  const double pair_cost = total(ge * he.t()), n = static_cast<double>(e.numel());
  const double half = 0.5 * cost.token_share;
  out.white_kl = half * out.energy * trace_of(cost.g) * trace_of(cost.h) / n;
  if (spectra.input) out.input = shares(*spectra.input, e, ge, out.energy, pair_cost);
  if (spectra.output) out.output = shares(*spectra.output, e.t(), he, out.energy, pair_cost);
  if (cost.c.defined()) {
    const torch::Tensor fe = apply(cost.frequency, e);
    const double lookup_cost = total(fe * apply(cost.c, e.t().contiguous()).t());
    out.lookup_kl = 0.5 * lookup_cost;
    out.white_kl += 0.5 * out.energy * trace_of(cost.frequency) * trace_of(cost.c) / n;
    if (spectra.lookup) out.lookup = shares(*spectra.lookup, e, fe, out.energy, lookup_cost);
  }
  out.predicted_kl = half * pair_cost + out.lookup_kl;
  return out;
}

}  // namespace spectralquant::spectra
