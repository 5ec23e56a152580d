#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/evaluate/scorer.h"

namespace spectralquant::evaluate {

/// Tokens by KLD, in bins of equal width on a logarithmic scale. Bin i counts edges[i] <= KLD <
/// edges[i + 1].
struct Histogram {
  std::vector<double> edges;  ///< one more than bins; the first is 0, the last infinity
  std::vector<std::int64_t> counts;
};
Histogram kld_histogram(const Positions& positions);

/// Mean KLD by position in the sequence that was run. Bin i holds edges[i] <= position < edges[i +
/// 1]; empty bins are left out at the end.
struct ByPosition {
  std::vector<std::int64_t> edges, tokens;
  std::vector<double> kld;  ///< 0 where there are no tokens
};
ByPosition kld_by_position(const Positions& positions, const Suite& suite);

constexpr int kTopTokens = 5;
/// The likeliest tokens at a position and their probabilities, likeliest first.
struct TopTokens {
  std::array<text::TokenId, kTopTokens> tokens{};
  std::array<float, kTopTokens> probabilities{};
};

/// A scored position with what both models would have written there.
struct Alternatives {
  std::size_t index = 0;  ///< in suite order
  TopTokens reference, candidate;
};

/// A token of the largest divergences, with the text around it.
struct WorstToken {
  std::size_t item = 0;
  std::int64_t position = 0;  ///< in the item
  Alternatives alternatives;
};

/// What is shown of one item: its first scored positions.
struct BrowsedItem {
  /// positions [first_index, first_index + n_tokens) in suite order
  std::size_t item = 0, first_index = 0, n_tokens = 0;
  std::vector<Alternatives> alternatives;  ///< of its tokens with the largest KLD
};

struct Details {
  Histogram histogram;
  ByPosition by_position;
  std::vector<WorstToken> worst;
  std::vector<BrowsedItem> browsed;
};

struct DetailOptions {
  std::size_t n_worst = 40;
  /// items, spread evenly over the suite: the same ones for every candidate
  std::size_t n_browsed = 4;
  std::size_t n_browsed_tokens = 400;  ///< of one item at most
  double share_with_alternatives = 0.1;
};

/// Looks closely at one candidate on one suite. Both models run once more over the items that are
/// shown, unless the cache holds the result.
Details look_closely(Subject& reference, Subject& candidate, const Suite& suite,
                     const Positions& positions, Cache& cache, const EvaluateOptions& evaluate,
                     const DetailOptions& options = {}, const Progress& progress = {});

}  // namespace spectralquant::evaluate
