#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/evaluate/scorer.h"

namespace spectralquant::evaluate {

/// Prompts of one suite: the first tokens of its items, all of one length.
struct Prompts {
  std::string suite, suite_hash;
  std::vector<std::vector<text::TokenId>> tokens;  ///< [n][L]
};

/// At most n_prompts items of the suite that are longer than n_tokens, spread evenly. Empty if
/// there are none.
Prompts take_prompts(const Suite& suite, std::size_t n_prompts = 64, std::size_t n_tokens = 64);

/// Greedy continuations, one a prompt, [n][n_tokens]; from the cache if it knows them. What follows
/// an end of text is that token again.
std::vector<std::vector<text::TokenId>> continuations(Subject& subject, const Prompts& prompts,
                                                      std::int64_t n_tokens, text::TokenId eos,
                                                      Cache& cache, const Progress& progress = {});

/// How long two models write the same.
struct CommonPrefixes {
  /// by prompt: tokens until they differ; the whole length if they never do
  std::vector<std::int64_t> same;
  std::optional<double> median;  ///< of `same`; none if most never differ
  double identical = 0;          ///< share of prompts that never differ
  double agreement = 0;          ///< mean of same / length
  std::vector<std::pair<std::int64_t, double>>
      /// tokens, share of prompts still the same; two steps an octave from (0, 1) to the length
      curve;
};
CommonPrefixes compare_continuations(const std::vector<std::vector<text::TokenId>>& reference,
                                     const std::vector<std::vector<text::TokenId>>& candidate);

}  // namespace spectralquant::evaluate
