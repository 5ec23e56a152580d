#include "spectralquant/tune/curriculum.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "spectralquant/core/error.h"

namespace spectralquant::tune {
namespace {

/// n of n_text windows, by index: the text again and again, in another order each time.
std::vector<std::int64_t> repeated(std::size_t n_text, std::int64_t n, std::uint64_t seed) {
  std::vector<std::int64_t> out;
  std::vector<std::int64_t> order(n_text);
  for (std::uint64_t epoch = 0; static_cast<std::int64_t>(out.size()) < n; ++epoch) {
    std::iota(order.begin(), order.end(), 0);
    std::seed_seq mixed{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                        static_cast<std::uint32_t>(epoch)};
    std::mt19937_64 random(mixed);
    // std::shuffle differs between libraries
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    const auto left = static_cast<std::size_t>(n) - out.size();
    out.insert(out.end(), order.begin(),
               order.begin() + static_cast<std::ptrdiff_t>(std::min(left, order.size())));
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

std::vector<std::int64_t> order_windows(const Text& text, const Mixture& mixture,
                                        std::uint64_t seed) {
  if ((mixture.file_windows > 0 && text.files.empty()) ||
      (mixture.own_windows > 0 && text.own.empty())) {
    throw Error(ErrorCode::kBadUsage, "there is no text to tune on", {},
                "give more calibration text, or let the model write its own (self:N)");
  }
  const auto files = repeated(text.files.size(), mixture.file_windows, 2 * seed),
             own = repeated(text.own.size(), mixture.own_windows, 2 * seed + 1);
  const std::size_t n = files.size() + own.size();
  std::vector<std::int64_t> order;
  for (std::size_t i = 0, used = 0; i < n; ++i) {
    const std::size_t due = (i + 1) * files.size() / n;  // files among the first i + 1
    order.push_back(due > used ? files[used]
                               : static_cast<std::int64_t>(text.files.size()) + own[i - used]);
    used = due;
  }
  return order;
}

}  // namespace spectralquant::tune
