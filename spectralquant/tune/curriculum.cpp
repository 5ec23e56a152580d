#include "spectralquant/tune/curriculum.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "spectralquant/core/error.h"

namespace spectralquant::tune {
namespace {

/// n windows: the text again and again, in another order each time.
std::vector<const Window*> repeated(const Windows& text, std::int64_t n, std::uint64_t seed) {
  std::vector<const Window*> out;
  std::vector<std::size_t> order(text.size());
  for (std::uint64_t epoch = 0; static_cast<std::int64_t>(out.size()) < n; ++epoch) {
    std::iota(order.begin(), order.end(), 0);
    std::seed_seq mixed{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                        static_cast<std::uint32_t>(epoch)};
    std::mt19937_64 random(mixed);
    // std::shuffle differs between libraries
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    for (std::size_t i = 0; i < order.size() && static_cast<std::int64_t>(out.size()) < n; ++i)
      out.push_back(&text[order[i]]);
  }
  return out;
}

}  // namespace

Mixture mix(std::int64_t n_windows, std::int64_t n_files, double own_share, int max_epochs) {
  const auto from_files =
      static_cast<std::int64_t>(std::llround((1 - own_share) * static_cast<double>(n_windows)));
  const std::int64_t files = std::min(from_files, n_files * max_epochs);
  return {files, n_windows - files};
}

Curriculum::Curriculum(const Text& text, const Mixture& mixture, std::uint64_t seed) {
  if ((mixture.file_windows > 0 && text.files.empty()) ||
      (mixture.own_windows > 0 && text.own.empty())) {
    throw Error(ErrorCode::kBadUsage, "there is no text to tune on", {},
                "give more calibration text, or let the model write its own (self:N)");
  }
  const auto files = repeated(text.files, mixture.file_windows, 2 * seed),
             own = repeated(text.own, mixture.own_windows, 2 * seed + 1);
  const std::size_t n = files.size() + own.size();
  for (std::size_t i = 0, used = 0; i < n; ++i) {
    const std::size_t due = (i + 1) * files.size() / n;  // files among the first i + 1
    order_.push_back(due > used ? files[used] : own[i - used]);
    used = due;
  }
}

}  // namespace spectralquant::tune
