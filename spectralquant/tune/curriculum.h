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
  Windows held_aside;  ///< never trained on: tells when to stop and which state to keep
};

/// How much of each kind of text a run sees.
struct Mixture {
  std::int64_t file_windows = 0, own_windows = 0;  ///< in all, repetitions counted
};

/// Splits a run of n_windows between n_files windows of files, each used max_epochs times at most,
/// and own samples: own_share of the run, and more where the files do not reach.
Mixture mix(std::int64_t n_windows, std::int64_t n_files, double own_share, int max_epochs);

/// Which window a step trains on: a function of text, seed and mixture.
///
/// Files and own samples alternate evenly. Each kind is gone through in random order, anew for
/// every repetition.
class Curriculum {
 public:
  /// Errors   Error(kBadUsage) if a kind of text is needed and there is none of it.
  Curriculum(const Text& text, const Mixture& mixture, std::uint64_t seed);

  const Window& window(std::int64_t step, std::int64_t index, std::int64_t windows_per_step) const {
    return *order_[static_cast<std::size_t>((step * windows_per_step + index) %
                                            static_cast<std::int64_t>(order_.size()))];
  }

 private:
  std::vector<const Window*> order_;
};

}  // namespace spectralquant::tune
