#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/evaluate/overlap.h"
#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

/// One suite as one candidate sees it.
struct AlignmentInput {
  std::string suite;
  std::optional<Seen> seen;  ///< none: the calibration text is not known
  const Positions* reference = nullptr;
  const Positions* candidate = nullptr;
  /// the same quantization calibrated on the model's own samples; null if there is none
  const Positions* control = nullptr;
};

/// Is a loss better kept, or only moved towards the calibration text?
///
///     drift = KLD − (loss − loss of the reference)
///
/// On text that the reference itself wrote the loss rises by the KLD, on average: drift 0. On other
/// text a candidate with drift > 0 has moved towards the text. A flatter or sharper distribution
/// does that on every text; moving towards the calibration text does it on text of that kind more
/// than on other. So what counts is the excess over the suites that were never seen.
struct Alignment {
  std::string suite;
  std::optional<Seen> seen;
  Interval kld;          ///< (a) closeness to the original
  Interval loss_change;  ///< loss − loss of the reference
  Interval drift;        ///< (b) towards the text
  /// drift − mean drift of the suites never seen; for a suite that was
  std::optional<Interval> excess_drift;
  std::optional<Interval> excess_gain;           ///< the same with −loss_change
  std::optional<Interval> control_excess_drift;  ///< excess_drift − that of the control
  bool below_reference = false;                  ///< the whole interval of loss_change lies below 0
  /// "leaked", "aligned", "shifted", "unexplained", "kept": see judge_alignment()
  std::string verdict;
  std::string text;  ///< the verdict in plain words, with its figures
};

/// One entry a suite, in order; suites of one candidate.
///
/// Verdicts  leaked       the calibration text holds the suite: its figures tell nothing about
///           other text aligned      the drift exceeds that on suites never seen, and the control's
///           excess if there is a control shifted      loss below the reference, but no more drift
///           than elsewhere: a flatter or sharper distribution unexplained  loss below the
///           reference, and the calibration text is not known kept         none of these
std::vector<Alignment> judge_alignment(const std::vector<AlignmentInput>& suites,
                                       const EvaluateOptions& options);

}  // namespace spectralquant::evaluate
