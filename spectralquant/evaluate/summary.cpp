// Means, percentiles and intervals of positions.
#include <cmath>
#include <limits>

#include "spectralquant/evaluate/score.h"
#include "spectralquant/evaluate/statistics.h"

namespace spectralquant::evaluate {
namespace {

/// Means of what is not finite mean nothing, nor do shares of the rest: NaN, all of them.
Score without_figures(Score score) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  for (auto* interval : {&score.loss, &score.loss_change, &score.kld, &score.top1_agreement})
    *interval = {kNone, kNone, kNone};
  score.kld_p90 = score.kld_p99 = score.kld_max = score.rms_delta_p = kNone;
  return score;
}

}  // namespace

Score summarize(const Positions& candidate, const Positions* reference, const Positions* baseline,
                const EvaluateOptions& options) {
  Score score;
  score.n_tokens = static_cast<std::int64_t>(candidate.loss.size());
  for (std::size_t i = 0; i < candidate.loss.size(); ++i)
    score.n_not_finite += !std::isfinite(candidate.loss[i]) || !std::isfinite(candidate.kld[i]);
  if (!score.is_finite()) return without_figures(score);
  const auto interval = [&](std::initializer_list<const std::vector<float>*> quantities,
                            const Statistic& statistic) {
    UnitSums units;
    units.count(candidate.unit);
    for (const auto* values : quantities) units.add(*values, candidate.unit);
    return bootstrap(units, statistic, options.bootstrap_samples, options.seed);
  };
  const auto first = [](const std::vector<double>& m) { return m[0]; };
  score.loss = interval({&candidate.loss}, first);
  score.kld = interval({&candidate.kld}, first);
  const std::vector<float> same(candidate.same_top.begin(), candidate.same_top.end());
  score.top1_agreement = interval({&same}, first);
  score.kld_p90 = percentile(candidate.kld, 0.90);
  score.kld_p99 = percentile(candidate.kld, 0.99);
  score.kld_max = percentile(candidate.kld, 1.0);
  double squares = 0;
  for (float d : candidate.delta_p) squares += static_cast<double>(d) * d;
  score.rms_delta_p = candidate.delta_p.empty() ? 0 : std::sqrt(squares / candidate.delta_p.size());
  if (!reference) return score;
  score.loss_change = interval({&candidate.loss, &reference->loss},
                               [](const std::vector<double>& m) { return m[0] - m[1]; });
  if (!baseline) return score;
  score.gap_recovery =
      interval({&candidate.loss, &reference->loss, &baseline->loss},
               [](const std::vector<double>& m) { return (m[2] - m[0]) / (m[2] - m[1]); });
  score.has_gap_recovery = true;
  return score;
}

}  // namespace spectralquant::evaluate
