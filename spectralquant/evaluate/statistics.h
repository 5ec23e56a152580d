#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

/// Sums of per-token quantities over the units (documents or windows) of a suite: what the bootstrap resamples.
///
/// Shapes   sums: one vector a quantity, one entry a unit; n_tokens: one entry a unit.
struct UnitSums {
  std::vector<std::vector<double>> sums;
  std::vector<double> n_tokens;

  /// Adds a quantity given per position; units are numbered from 0.
  template <typename Values>
  void add(const Values& values, const std::vector<std::int32_t>& unit) {
    std::vector<double> sum;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (static_cast<std::size_t>(unit[i]) >= sum.size()) sum.resize(unit[i] + 1, 0.0);
      sum[unit[i]] += values[i];
    }
    sums.push_back(std::move(sum));
  }
};

/// 95 % percentile bootstrap over units, with replacement; tokens stay with their document.
///
/// `statistic` gets the token-weighted means of every quantity of a resample. Its value on the whole is `mean`.
/// The draws depend on seed and number of units alone, so that candidates scored on one suite are resampled alike.
Interval bootstrap(const UnitSums& units, const std::function<double(const std::vector<double>& means)>& statistic, int n_samples,
                   std::uint64_t seed);

/// Value below which `share` of the values lie (linear interpolation, as NumPy's default). Empty: 0.
double percentile(std::vector<float> values, double share);

}  // namespace spectralquant::evaluate
