#include "spectralquant/spectra/spectrum.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "spectralquant/core/error.h"

namespace spectralquant::spectra {
namespace {

/// Subspace iterations, and columns beyond those wanted: with spectra that fall by decades the
/// wanted directions stand after two or three.
constexpr int kIterations = 4;
constexpr std::int64_t kSpareColumns = 32;

std::int64_t wanted_directions(std::int64_t n) {
  return std::min(top_count(kTopShares.back(), n), kMostDirections);
}

std::vector<double> to_vector(const torch::Tensor& values) {
  const torch::Tensor flat = values.to(torch::kCPU, torch::kFloat64).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

/// exp of the entropy of the known eigenvalues and of `n_rest` more that share what they leave of
/// the trace.
double effective_rank(const std::vector<double>& eigenvalues, double trace, std::int64_t n_rest) {
  if (!(trace > 0)) return 0;
  double entropy = 0, rest = 1;
  for (const double value : eigenvalues) {
    const double p = value / trace;
    rest -= p;
    if (p > 0) entropy -= p * std::log(p);
  }
  if (n_rest > 0 && rest > 0) entropy -= rest * std::log(rest / static_cast<double>(n_rest));
  return std::exp(entropy);
}

void require_moment(const torch::Tensor& moment) {
  if (!moment.defined() || moment.dim() < 1 || moment.dim() > 2 || moment.size(0) < 1 ||
      (moment.dim() == 2 && moment.size(0) != moment.size(1))) {
    throw bad_input("a second moment that is neither square nor a diagonal", {},
                    "gather the signals again: spectralquant calibrate");
  }
  if (!moment.isfinite().all().item<bool>()) {
    throw bad_input("a second moment holds NaN or infinity", {},
                    "gather the signals again: spectralquant calibrate");
  }
}

Spectrum decompose_diagonal(const torch::Tensor& moment) {
  const auto [values, order] = moment.to(torch::kFloat64).clamp_min(0).sort(0, /*descending=*/true);
  Spectrum out;
  out.size = moment.size(0);
  out.eigenvalues = to_vector(values);
  out.axes = order.slice(0, 0, wanted_directions(out.size)).contiguous();
  return out;
}

Spectrum decompose_exactly(const torch::Tensor& moment) {
  const auto [values, vectors] = torch::linalg_eigh(moment.to(torch::kFloat64), "L");  // ascending
  Spectrum out;
  out.size = moment.size(0);
  out.eigenvalues = to_vector(values.flip(0).clamp_min(0));
  out.directions = vectors.slice(1, out.size - wanted_directions(out.size)).flip(1).contiguous();
  return out;
}

void finish(Spectrum& spectrum, double trace, double squares) {
  spectrum.trace = trace;
  spectrum.participation_ratio = squares > 0 ? trace * trace / squares : 0;
  spectrum.effective_rank =
      effective_rank(spectrum.eigenvalues, trace,
                     spectrum.size - static_cast<std::int64_t>(spectrum.eigenvalues.size()));
}

}  // namespace

std::int64_t top_count(double share, std::int64_t n) {
  return std::max<std::int64_t>(1, std::llround(share * static_cast<double>(n)));
}

torch::Tensor Spectrum::coordinates(const torch::Tensor& a) const {
  if (axes.defined()) return a.index_select(1, axes);
  return a.mm(directions.to(a.scalar_type()));
}

double Spectrum::share_of_top(std::int64_t count) const {
  if (!(trace > 0)) return 0;
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += eigenvalues[static_cast<std::size_t>(i)];
  return sum / trace;
}

std::vector<std::pair<std::int64_t, double>> Spectrum::curve(std::size_t points) const {
  std::vector<std::pair<std::int64_t, double>> out;
  const auto n = static_cast<double>(eigenvalues.size());
  for (std::size_t i = 0; i < points; ++i) {
    const std::int64_t rank = std::llround(
        std::pow(n, points > 1 ? static_cast<double>(i) / static_cast<double>(points - 1) : 1.0));
    if (out.empty() || rank > out.back().first)
      out.emplace_back(rank, eigenvalues[static_cast<std::size_t>(rank - 1)]);
  }
  return out;
}

Spectrum decompose_by_subspace(const torch::Tensor& moment) {
  torch::NoGradGuard no_grad;
  require_moment(moment);
  const torch::Tensor m = moment.to(torch::kFloat32);
  Spectrum out;
  out.size = m.size(0);
  const std::int64_t wanted = wanted_directions(out.size),
                     columns = std::min(out.size, wanted + kSpareColumns);
  // any start does; this one makes results repeatable
  const torch::Generator generator = at::detail::createCPUGenerator(0);
  torch::Tensor basis = torch::randn({out.size, columns}, generator);
  for (int i = 0; i < kIterations; ++i) basis = std::get<0>(torch::linalg_qr(m.mm(basis)));
  const torch::Tensor inner = basis.t().mm(m.mm(basis)).to(torch::kFloat64);
  const auto [values, vectors] = torch::linalg_eigh(inner + inner.t(), "L");
  out.eigenvalues = to_vector(values.flip(0).slice(0, 0, wanted).clamp_min(0) / 2);
  out.directions = basis.mm(vectors.flip(1).slice(1, 0, wanted).to(torch::kFloat32));
  out.estimated = wanted < out.size;
  finish(out, m.diagonal().sum(torch::kFloat64).item<double>(),
         m.square().sum(torch::kFloat64).item<double>());
  return out;
}

Spectrum decompose(const torch::Tensor& moment) {
  torch::NoGradGuard no_grad;
  require_moment(moment);
  if (moment.dim() == 2 && moment.size(0) > kLargestExact) return decompose_by_subspace(moment);
  Spectrum out = moment.dim() == 1 ? decompose_diagonal(moment) : decompose_exactly(moment);
  double trace = 0, squares = 0;
  for (const double value : out.eigenvalues) trace += value, squares += value * value;
  finish(out, trace, squares);
  return out;
}

}  // namespace spectralquant::spectra
