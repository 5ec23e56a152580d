#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/core/progress.h"
#include "spectralquant/evaluate/stored_logits.h"
#include "spectralquant/evaluate/suite.h"
#include "spectralquant/model/model.h"

namespace spectralquant::evaluate {

/// A mean with its 95 % bootstrap interval over documents.
struct Interval {
  double mean = 0, low = 0, high = 0;
};

/// What a candidate does on a suite. Losses and divergences in nats per token.
struct Score {
  std::int64_t n_tokens = 0;  ///< scored predictions
  /// of them those whose loss or KLD is NaN or infinite; if there are any, no figure is a number
  std::int64_t n_not_finite = 0;
  Interval loss;         ///< mean −log p(next token)
  Interval loss_change;  ///< loss − the reference's, token by token
  Interval kld;          ///< mean KL(reference ‖ candidate); zero for the reference itself
  double kld_p90 = 0, kld_p99 = 0, kld_max = 0;
  Interval top1_agreement;  ///< share of positions where both put the same token first, 0..1
  double rms_delta_p = 0;   ///< root mean square change of the true token's probability
  /// (baseline loss − loss) / (baseline loss − reference loss); NaN without a baseline
  Interval gap_recovery;
  bool has_gap_recovery = false;

  bool is_finite() const { return n_not_finite == 0; }
};

/// Per-position results, kept for statistics: index by suite order.
struct Positions {
  std::vector<float> loss, kld, delta_p;
  std::vector<std::uint8_t> same_top;
  std::vector<std::int32_t> unit;  ///< document of each position
};

struct EvaluateOptions {
  int bootstrap_samples = 1000;
  std::uint64_t seed = 0;
  /// tokens run at once; 0: chosen from the vocabulary to bound memory
  std::int64_t batch_tokens = 0;
};

/// Document of every scored position, in suite order.
std::vector<std::int32_t> units_of(const Suite& suite);

/// Last hidden states where predictions count: one [n, D] float32 tensor on the CPU for each item.
std::vector<torch::Tensor> hidden_states(model::Model& model, const Suite& suite,
                                         const EvaluateOptions& options = {},
                                         const Progress& progress = {});

/// Scores the reference on its own hidden states: losses; divergence zero, agreement one.
Positions measure(model::Model& reference, const std::vector<torch::Tensor>& hidden,
                  const Suite& suite, const EvaluateOptions& options = {},
                  const Progress& progress = {});

/// Runs a candidate beside the reference, whose hidden states may serve any number of candidates.
/// Logits are made and used a slice at a time, never stored whole.
/// Errors   Error(kBadInput) if the candidate's vocabulary is another.
Positions compare(model::Model& reference, const std::vector<torch::Tensor>& hidden,
                  model::Model& candidate, const Suite& suite, const EvaluateOptions& options = {},
                  const Progress& progress = {});

/// The same against predictions stored before: the reference's model is not needed. `suite` is
/// suite_of(stored).
Positions measure(const StoredLogits& stored, const Suite& suite);
Positions compare(const StoredLogits& stored, model::Model& candidate, const Suite& suite,
                  const EvaluateOptions& options = {}, const Progress& progress = {});

/// Means, percentiles and intervals of positions. `reference` (may be null) gives the change of
/// loss; with `baseline` also the gap recovery.
Score summarize(const Positions& candidate, const Positions* reference, const Positions* baseline,
                const EvaluateOptions& options = {});

}  // namespace spectralquant::evaluate
