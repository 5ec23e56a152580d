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

Interval bootstrap(const UnitSums& units, const std::function<double(const std::vector<double>& means)>& statistic, int n_samples,
                   std::uint64_t seed) {
  const std::size_t n_units = units.n_tokens.size(), n_quantities = units.sums.size();
  std::vector<double> totals(n_quantities, 0.0);
  double n_tokens = 0;
  for (std::size_t u = 0; u < n_units; ++u) {
    n_tokens += units.n_tokens[u];
    for (std::size_t k = 0; k < n_quantities; ++k) totals[k] += units.sums[k][u];
  }
  Interval interval;
  if (n_tokens == 0) return interval;
  interval.mean = interval.low = interval.high = statistic(means_of(totals, n_tokens));
  if (n_units < 2 || n_samples < 2) return interval;

  std::mt19937_64 random(seed);
  std::vector<double> samples;
  samples.reserve(n_samples);
  for (int s = 0; s < n_samples; ++s) {
    std::fill(totals.begin(), totals.end(), 0.0);
    n_tokens = 0;
    for (std::size_t i = 0; i < n_units; ++i) {
      const std::size_t u = random() % n_units;  // n_units is tiny beside 2^64: no visible bias, and the same draws everywhere
      n_tokens += units.n_tokens[u];
      for (std::size_t k = 0; k < n_quantities; ++k) totals[k] += units.sums[k][u];
    }
    if (n_tokens > 0) samples.push_back(statistic(means_of(totals, n_tokens)));
  }
  std::sort(samples.begin(), samples.end());
  auto at = [&](double share) { return samples[static_cast<std::size_t>(std::lround(share * (samples.size() - 1)))]; };
  interval.low = at(0.025);
  interval.high = at(0.975);
  return interval;
}

double percentile(std::vector<float> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double position = share * (values.size() - 1);
  const std::size_t below = static_cast<std::size_t>(position), above = std::min(below + 1, values.size() - 1);
  return values[below] + (position - below) * (values[above] - values[below]);
}

}  // namespace spectralquant::evaluate
