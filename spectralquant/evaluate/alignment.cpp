#include "spectralquant/evaluate/alignment.h"

#include <fmt/format.h>

#include "spectralquant/evaluate/statistics.h"

namespace spectralquant::evaluate {
namespace {

/// Change of loss and drift of one model on one suite, on the same resamples.
struct Movement {
  Draws loss_change, drift;
};

Movement movement_of(const Positions& reference, const Positions& model,
                     const EvaluateOptions& options, std::uint64_t seed) {
  UnitSums units;
  units.count(model.unit);
  for (const auto* values : {&model.loss, &reference.loss, &model.kld})
    units.add(*values, model.unit);
  const auto draw = [&](const Statistic& statistic) {
    return resample(units, statistic, options.bootstrap_samples, seed);
  };
  return {draw([](const std::vector<double>& m) { return m[0] - m[1]; }),
          draw([](const std::vector<double>& m) { return m[2] - (m[0] - m[1]); })};
}

std::string figure(const Interval& i) {
  return fmt::format("{:+.4f} (95 %: {:+.4f} to {:+.4f})", i.mean, i.low, i.high);
}

std::string closeness(const Alignment& a) {
  return fmt::format("KLD {:.4f} (95 %: {:.4f} to {:.4f})", a.kld.mean, a.kld.low, a.kld.high);
}

/// Sets verdict and text.
void decide(Alignment& a) {
  const std::string change =
      fmt::format("loss {} against the reference, {}", figure(a.loss_change), closeness(a));
  const bool beyond_control = !a.control_excess_drift || a.control_excess_drift->low > 0;
  if (a.seen == Seen::kCalibratedOn) {
    a.verdict = "leaked";
    a.text = fmt::format(
        "The calibration text holds this suite or parts of it, so its figures tell nothing about "
        "other text: {}; drift towards the text "
        "{}.",
        change, figure(a.drift));
  } else if (a.excess_drift && a.excess_drift->low > 0 && beyond_control) {
    a.verdict = "aligned";
    a.text = fmt::format(
        "It moved towards the kind of text that it was calibrated on, by {} more than on suites "
        "never seen{}; {}. That part of the loss is "
        "no "
        "closeness to the original: judge by the KLD.",
        figure(*a.excess_drift),
        a.control_excess_drift
            ? fmt::format(", and {} more than the control did", figure(*a.control_excess_drift))
            : "",
        change);
  } else if (a.below_reference && !a.seen) {
    a.verdict = "unexplained";
    a.text = fmt::format(
        "The loss lies below the original's, which no closeness explains: {}. Give the calibration "
        "text to learn whether it drifted there.",
        change);
  } else if (a.below_reference) {
    a.verdict = "shifted";
    a.text = fmt::format(
        "The loss lies below the original's without more drift than elsewhere: {}; drift {}. The "
        "distribution became flatter or sharper; "
        "judge by the KLD.",
        change, figure(a.drift));
  } else {
    a.verdict = "kept";
    std::string beyond;
    if (a.excess_drift)
      beyond = fmt::format(", {} beyond suites never seen", figure(*a.excess_drift));
    else if (a.seen == Seen::kSameSource)
      beyond = ", with no suite that was never seen to compare";
    a.text = fmt::format("No sign of alignment: {}; drift {}{}.", change, figure(a.drift), beyond);
  }
}

}  // namespace

std::vector<Alignment> judge_alignment(const std::vector<AlignmentInput>& suites,
                                       const EvaluateOptions& options) {
  std::vector<Movement> moves, controls;
  std::vector<Draws> drift_elsewhere, change_elsewhere, control_elsewhere;  // on suites never seen
  for (std::size_t s = 0; s < suites.size(); ++s) {
    const auto& in = suites[s];
    // suites are independent texts: draws of their own
    const std::uint64_t seed = options.seed + 1 + s;
    moves.push_back(movement_of(*in.reference, *in.candidate, options, seed));
    controls.push_back(in.control ? movement_of(*in.reference, *in.control, options, seed)
                                  : Movement{});
    if (in.seen != Seen::kNever) continue;
    drift_elsewhere.push_back(moves[s].drift);
    change_elsewhere.push_back(moves[s].loss_change);
    if (in.control) control_elsewhere.push_back(controls[s].drift);
  }
  std::vector<Alignment> out;
  for (std::size_t s = 0; s < suites.size(); ++s) {
    const auto& in = suites[s];
    const auto score = summarize(*in.candidate, in.reference, nullptr, options);
    Alignment a{.suite = in.suite,
                .seen = in.seen,
                .kld = score.kld,
                .loss_change = score.loss_change,
                .drift = moves[s].drift.interval(),
                .excess_drift = {},
                .excess_gain = {},
                .control_excess_drift = {},
                .below_reference = score.loss_change.high < 0,
                .verdict = {},
                .text = {}};
    if (in.seen && in.seen != Seen::kNever && !drift_elsewhere.empty()) {
      const auto excess = difference(moves[s].drift, mean(drift_elsewhere));
      a.excess_drift = excess.interval();
      // gain is −change
      a.excess_gain = difference(mean(change_elsewhere), moves[s].loss_change).interval();
      if (in.control && !control_elsewhere.empty())
        a.control_excess_drift =
            difference(excess, difference(controls[s].drift, mean(control_elsewhere))).interval();
    }
    decide(a);
    out.push_back(std::move(a));
  }
  return out;
}

}  // namespace spectralquant::evaluate
