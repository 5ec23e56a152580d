#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace spectralquant::evaluate {

/// Bytes of a file as llama-perplexity --kl-divergence-base writes them.
///
/// Shapes  tokens: windows of one length n; logits: for each window n − 1 − n/2 rows of V.
inline std::string stored_bytes(const std::vector<std::vector<std::int32_t>>& tokens,
                                const std::vector<std::vector<std::vector<float>>>& logits) {
  std::string out = "_logits_";
  const auto put = [&](const auto& value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(static_cast<std::int32_t>(tokens.at(0).size()));
  put(static_cast<std::int32_t>(logits.at(0).at(0).size()));
  put(static_cast<std::int32_t>(tokens.size()));
  for (const auto& window : tokens)
    for (const auto id : window) put(id);
  for (const auto& window : logits) {
    for (const auto& row : window) {
      const float high = *std::max_element(row.begin(), row.end()),
                  low = std::max(high - 16, *std::min_element(row.begin(), row.end()));
      double sum = 0;
      for (const float x : row) sum += std::exp(static_cast<double>(x) - high);
      const float step = (high - low) / 65535;
      put(step);
      put(static_cast<float>(low - high - std::log(sum)));
      for (const float x : row)
        put(static_cast<std::uint16_t>(step > 0 && x > low ? std::lround((x - low) / step) : 0));
      if (row.size() % 2) put(std::uint16_t{0});
    }
  }
  return out;
}

}  // namespace spectralquant::evaluate
