#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

/// Sums of per-token quantities over the units (documents or windows) of a suite: what the
/// bootstrap resamples.
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
  /// Counts the tokens of each unit.
  void count(const std::vector<std::int32_t>& unit);
};

using Statistic = std::function<double(const std::vector<double>& means)>;

/// A statistic on the whole, and on resamples of its units.
struct Draws {
  double whole = 0;
  std::vector<double> samples;  ///< in the order drawn; empty with fewer than two units

  Interval interval() const;  ///< 95 % percentiles of the samples
};

/// Bootstrap over units, with replacement; tokens stay with their document.
///
/// `statistic` gets the token-weighted means of every quantity of a resample. The draws depend on
/// seed and number of units alone, so that candidates scored on one suite are resampled alike and
/// sample i of one belongs to sample i of the other.
Draws resample(const UnitSums& units, const Statistic& statistic, int n_samples,
               std::uint64_t seed);

/// resample() and its interval.
Interval bootstrap(const UnitSums& units, const Statistic& statistic, int n_samples,
                   std::uint64_t seed);

/// a − b, sample by sample: of paired draws if both used one seed and one suite, of independent
/// ones otherwise. A side without samples has no interval: neither has the difference.
Draws difference(const Draws& a, const Draws& b);

/// Mean of several draws, sample by sample.
Draws mean(const std::vector<Draws>& all);

/// Value below which `share` of the values lie (linear interpolation, as NumPy's default). Empty:
/// 0.
double percentile(std::vector<float> values, double share);

}  // namespace spectralquant::evaluate
