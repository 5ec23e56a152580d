#pragma once
#include <string_view>
#include <vector>

#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

enum class Verdict { kBetter, kWorse, kNotDistinguishable };
std::string_view name_of(Verdict verdict);  ///< "better", "worse", "not distinguishable"

/// Two candidates on one suite, token by token on the same resamples of its documents. Differences
/// are a − b, in nats per token.
struct PairComparison {
  Interval loss, kld;
  /// of a against b
  Verdict loss_verdict = Verdict::kNotDistinguishable, kld_verdict = Verdict::kNotDistinguishable;
  /// Width of the KLD difference's interval over the mean KLD of the two.
  double resolution = 0;
  /// resolution is at most kResolution: a difference of 1 % of the KLD can be told
  bool enough = false;
  /// about so many of the same kind of text would be enough; widths fall with the root of the
  /// tokens
  std::int64_t tokens_needed = 0;
};

constexpr double kResolution = 0.01;

/// Errors   none; both must be of one suite. With fewer than two documents nothing can be told, and
///          tokens_needed is 0.
PairComparison compare_pair(const Positions& a, const Positions& b, const EvaluateOptions& options);

}  // namespace spectralquant::evaluate
