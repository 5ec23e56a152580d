#pragma once
#include <cstdint>
#include <vector>

namespace spectralquant::tune {

using Window = std::vector<std::int32_t>;
using Windows = std::vector<Window>;

/// Text for tuning, in windows of equal length.
struct Text {
  Windows files;       ///< from files
  Windows own;         ///< written by the model itself
  Windows held_aside;  ///< never trained on: tells what a run gained
};

/// How much of each kind of text a run sees.
struct Mixture {
  std::int64_t file_windows = 0, own_windows = 0;  ///< in all, repetitions counted
};

/// Splits a run of n_windows between n_files windows of files, each used max_epochs times at most,
/// and own samples: own_share of the run, and more where the files do not reach.
Mixture mix(std::int64_t n_windows, std::int64_t n_files, double own_share, int max_epochs);

/// The windows a run trains on, in order, as indices into the files followed by own samples.
///
/// Files and own samples alternate evenly. Each kind is gone through in random order, anew for
/// every repetition.
/// Errors   Error(kBadUsage) if a kind of text is needed and there is none of it.
std::vector<std::int64_t> order_windows(const Text& text, const Mixture& mixture,
                                        std::uint64_t seed);

}  // namespace spectralquant::tune
