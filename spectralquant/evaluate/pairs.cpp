#include "spectralquant/evaluate/pairs.h"

#include <cmath>

#include "spectralquant/evaluate/statistics.h"

namespace spectralquant::evaluate {
namespace {

Verdict verdict_of(const Interval& difference, bool known) {
  if (!known || (difference.low <= 0 && difference.high >= 0)) return Verdict::kNotDistinguishable;
  return difference.high < 0 ? Verdict::kBetter : Verdict::kWorse;
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kBetter:
      return "better";
    case Verdict::kWorse:
      return "worse";
    case Verdict::kNotDistinguishable:
      return "not distinguishable";
  }
  return "";
}

PairComparison compare_pair(const Positions& a, const Positions& b,
                            const EvaluateOptions& options) {
  UnitSums units;
  units.count(a.unit);
  for (const auto* values : {&a.loss, &b.loss, &a.kld, &b.kld}) units.add(*values, a.unit);
  const auto loss = resample(
      units, [](const std::vector<double>& m) { return m[0] - m[1]; }, options.bootstrap_samples,
      options.seed);
  const auto kld = resample(
      units, [](const std::vector<double>& m) { return m[2] - m[3]; }, options.bootstrap_samples,
      options.seed);
  PairComparison out;
  out.loss = loss.interval();
  out.kld = kld.interval();
  const bool known = !kld.samples.empty();
  out.loss_verdict = verdict_of(out.loss, known);
  out.kld_verdict = verdict_of(out.kld, known);
  double sum = 0;
  for (std::size_t i = 0; i < a.kld.size(); ++i)
    sum += (static_cast<double>(a.kld[i]) + b.kld[i]) / 2;
  if (!known || !(sum > 0)) return out;
  out.resolution = (out.kld.high - out.kld.low) / (sum / a.kld.size());
  out.enough = out.resolution <= kResolution;
  const double factor = std::max(1.0, std::pow(out.resolution / kResolution, 2));
  out.tokens_needed = static_cast<std::int64_t>(std::ceil(factor * a.kld.size()));
  return out;
}

}  // namespace spectralquant::evaluate
