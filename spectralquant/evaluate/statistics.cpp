#include "spectralquant/evaluate/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace spectralquant::evaluate {
namespace {

std::vector<double> means_of(const std::vector<double>& sums, double n_tokens) {
  std::vector<double> means = sums;
  for (double& m : means) m /= n_tokens;
  return means;
}

}  // namespace

void UnitSums::count(const std::vector<std::int32_t>& unit) {
  for (const auto u : unit) {
    if (static_cast<std::size_t>(u) >= n_tokens.size()) n_tokens.resize(u + 1, 0.0);
    n_tokens[u] += 1;
  }
}

Interval Draws::interval() const {
  Interval interval{whole, whole, whole};
  if (samples.empty()) return interval;
  if (std::any_of(samples.begin(), samples.end(), [](double x) { return std::isnan(x); }))
    return {whole, std::nan(""), std::nan("")};
  auto sorted = samples;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double share) {
    return sorted[static_cast<std::size_t>(std::lround(share * (sorted.size() - 1)))];
  };
  interval.low = at(0.025);
  interval.high = at(0.975);
  return interval;
}

Draws resample(const UnitSums& units, const Statistic& statistic, int n_samples,
               std::uint64_t seed) {
  const std::size_t n_units = units.n_tokens.size(), n_quantities = units.sums.size();
  std::vector<double> totals(n_quantities, 0.0);
  double n_tokens = 0;
  for (std::size_t u = 0; u < n_units; ++u) {
    n_tokens += units.n_tokens[u];
    for (std::size_t k = 0; k < n_quantities; ++k) totals[k] += units.sums[k][u];
  }
  Draws draws;
  if (n_tokens == 0) return draws;
  draws.whole = statistic(means_of(totals, n_tokens));
  if (n_units < 2 || n_samples < 2) return draws;

  std::mt19937_64 random(seed);
  draws.samples.reserve(n_samples);
  for (int s = 0; s < n_samples; ++s) {
    std::fill(totals.begin(), totals.end(), 0.0);
    n_tokens = 0;
    for (std::size_t i = 0; i < n_units; ++i) {
      // n_units is tiny beside 2^64: no visible bias, and the same draws everywhere
      const std::size_t u = random() % n_units;
      n_tokens += units.n_tokens[u];
      for (std::size_t k = 0; k < n_quantities; ++k) totals[k] += units.sums[k][u];
    }
    // A resample of empty documents only has no mean; the whole stands in, so that samples of two
    // candidates stay in step.
    draws.samples.push_back(n_tokens > 0 ? statistic(means_of(totals, n_tokens)) : draws.whole);
  }
  return draws;
}

Interval bootstrap(const UnitSums& units, const Statistic& statistic, int n_samples,
                   std::uint64_t seed) {
  return resample(units, statistic, n_samples, seed).interval();
}

Draws difference(const Draws& a, const Draws& b) {
  Draws out{a.whole - b.whole, {}};
  for (std::size_t i = 0; i < std::min(a.samples.size(), b.samples.size()); ++i)
    out.samples.push_back(a.samples[i] - b.samples[i]);
  return out;
}

Draws mean(const std::vector<Draws>& all) {
  Draws out;
  std::size_t n_samples = all.empty() ? 0 : all[0].samples.size();
  for (const auto& d : all) n_samples = std::min(n_samples, d.samples.size());
  out.samples.resize(n_samples, 0.0);
  for (const auto& d : all) {
    out.whole += d.whole / all.size();
    for (std::size_t i = 0; i < n_samples; ++i) out.samples[i] += d.samples[i] / all.size();
  }
  return out;
}

double percentile(std::vector<float> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double position = share * (values.size() - 1);
  const std::size_t below = static_cast<std::size_t>(position),
                    above = std::min(below + 1, values.size() - 1);
  return values[below] + (position - below) * (values[above] - values[below]);
}

}  // namespace spectralquant::evaluate
