#pragma once
#include <cstdint>
#include <vector>

#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/model/model.h"

namespace spectralquant::model {

struct SamplingOptions {
  std::int64_t window_tokens = 512;  ///< length of each sequence
  double temperature = 1.0;
  std::uint64_t seed = 0;
  /// what every sequence starts from (BOS or EOS); not part of the result
  std::int32_t first_token = 0;
  std::int64_t batch = 0;        ///< sequences at once; 0: chosen from the model's size
  distribute::Group group = {};  ///< its processes share the sequences; all get all of them
};

/// Lets the model write: n_windows sequences of window_tokens tokens, with recurrent state and KV
/// cache.
///
/// A function of seed, options, weights and thread count. Returns n_windows vectors of
/// window_tokens ids.
std::vector<std::vector<std::int32_t>> sample(Model& model, std::int64_t n_windows,
                                              const SamplingOptions& options,
                                              const Progress& progress = {});

/// The likeliest next token again and again, n_tokens times, after each of the prompts.
///
/// Shapes   prompts: all of one length, at least 1; returns as many vectors of n_tokens ids, the
///          prompts left out.
/// Errors   Error(kBadUsage) if the lengths differ.
std::vector<std::vector<std::int32_t>> continue_greedily(
    Model& model, const std::vector<std::vector<std::int32_t>>& prompts, std::int64_t n_tokens,
    const Progress& progress = {});

}  // namespace spectralquant::model
