#include "spectralquant/evaluate/continuation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "spectralquant/core/hash.h"
#include "spectralquant/model/sampling.h"

namespace spectralquant::evaluate {

Prompts take_prompts(const Suite& suite, std::size_t n_prompts, std::size_t n_tokens) {
  std::vector<const Item*> long_enough;
  for (const auto& item : suite.items)
    if (item.tokens.size() > n_tokens) long_enough.push_back(&item);
  Prompts out{suite.spec.name, suite.hash, {}};
  const std::size_t n = std::min(n_prompts, long_enough.size());
  for (std::size_t i = 0; i < n; ++i) {
    const auto& tokens = long_enough[i * long_enough.size() / n]->tokens;
    out.tokens.emplace_back(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n_tokens));
  }
  return out;
}

std::vector<std::vector<text::TokenId>> continuations(Subject& subject, const Prompts& prompts,
                                                      std::int64_t n_tokens, text::TokenId eos,
                                                      Cache& cache, const Progress& progress) {
  if (prompts.tokens.empty()) return {};
  const std::size_t row_bytes = static_cast<std::size_t>(n_tokens) * sizeof(text::TokenId);
  const std::string key =
      cache_key(subject, prompts.suite_hash,
                fmt::format("{} prompts of {}, {} tokens", prompts.tokens.size(),
                            prompts.tokens[0].size(), n_tokens));
  if (const auto bytes = cache.find("continuations", key);
      bytes && bytes->size() == prompts.tokens.size() * row_bytes) {
    std::vector<std::vector<text::TokenId>> known(
        prompts.tokens.size(), std::vector<text::TokenId>(static_cast<std::size_t>(n_tokens)));
    for (std::size_t i = 0; i < known.size(); ++i)
      std::memcpy(known[i].data(), bytes->data() + i * row_bytes, row_bytes);
    return known;
  }
  auto written = model::continue_greedily(subject.model(), prompts.tokens, n_tokens, progress);
  std::string bytes;
  for (auto& row : written) {
    if (const auto end = std::find(row.begin(), row.end(), eos); end != row.end())
      std::fill(end, row.end(), eos);
    bytes.append(reinterpret_cast<const char*>(row.data()), row_bytes);
  }
  cache.store("continuations", key, bytes);
  return written;
}

CommonPrefixes compare_continuations(const std::vector<std::vector<text::TokenId>>& reference,
                                     const std::vector<std::vector<text::TokenId>>& candidate) {
  CommonPrefixes out;
  if (reference.empty()) return out;
  const auto length = static_cast<std::int64_t>(reference[0].size());
  const auto n = static_cast<double>(reference.size());
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const auto [a, b] =
        std::mismatch(reference[i].begin(), reference[i].end(), candidate[i].begin());
    out.same.push_back(a - reference[i].begin());
    out.identical += (out.same.back() == length) / n;
    out.agreement += static_cast<double>(out.same.back()) / static_cast<double>(length) / n;
  }
  auto sorted = out.same;
  std::sort(sorted.begin(), sorted.end());
  const auto middle = sorted.size() / 2;
  const double median = sorted.size() % 2 ? static_cast<double>(sorted[middle])
                                          : (sorted[middle - 1] + sorted[middle]) / 2.0;
  if (sorted[middle] < length) out.median = median;
  std::vector<std::int64_t> steps = {0, 1, 2, 3};
  for (std::int64_t t = 4; t < length; t *= 2) steps.insert(steps.end(), {t, t + t / 2});
  std::erase_if(steps, [&](auto t) { return t >= length; });
  steps.push_back(length);
  for (const auto t : steps) {
    const auto still =
        std::count_if(out.same.begin(), out.same.end(), [&](auto s) { return s >= t; });
    out.curve.emplace_back(t, static_cast<double>(still) / n);
  }
  return out;
}

}  // namespace spectralquant::evaluate
