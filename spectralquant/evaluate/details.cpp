#include "spectralquant/evaluate/details.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include "spectralquant/core/hash.h"

namespace spectralquant::evaluate {
namespace {

// Below 1e-6 nats lies what float32 cannot tell from 0; above 100 lies nothing that was ever seen.
constexpr int kFirstDecade = -6, kLastDecade = 2, kBinsPerDecade = 5;

/// Indices of the n largest, largest first; equal ones in order.
std::vector<std::size_t> largest(const std::vector<float>& values, std::size_t first,
                                 std::size_t last, std::size_t n) {
  std::vector<std::size_t> order(last - first);
  std::iota(order.begin(), order.end(), first);
  n = std::min(n, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
      [&](auto a, auto b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  order.resize(n);
  return order;
}

/// Where each item's positions begin in suite order, and their end.
std::vector<std::size_t> offsets_of(const Suite& suite) {
  std::vector<std::size_t> begin = {0};
  for (const auto& item : suite.items) begin.push_back(begin.back() + item.n_scored());
  return begin;
}

/// The model's likeliest tokens at positions of the suite (ascending).
std::vector<TopTokens> likeliest(model::Model& model, const Suite& suite,
                                 const std::vector<std::size_t>& begin,
                                 const std::vector<std::size_t>& indices,
                                 const EvaluateOptions& options, const Progress& progress) {
  torch::NoGradGuard no_grad;
  Suite shown;  // the items that hold the positions
  shown.spec = suite.spec;
  std::vector<std::vector<std::int64_t>> rows;  // by item shown
  for (std::size_t i = 0, next = 0; i < suite.items.size(); ++i) {
    if (next == indices.size() || indices[next] >= begin[i + 1]) continue;
    shown.items.push_back(suite.items[i]);
    shown.n_scored += static_cast<std::int64_t>(suite.items[i].n_scored());
    rows.emplace_back();
    for (; next < indices.size() && indices[next] < begin[i + 1]; ++next)
      rows.back().push_back(static_cast<std::int64_t>(indices[next] - begin[i]));
  }
  const auto hidden = hidden_states(model, shown, options, progress);
  const auto n_top = std::min<std::int64_t>(kTopTokens, model.architecture().vocab_size());
  std::vector<TopTokens> out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto chosen =
        hidden[i].index_select(0, torch::tensor(rows[i])).to(model.device(), model.dtype());
    const auto [p, ids] = model.head(chosen).to(torch::kFloat32).softmax(-1).topk(n_top);
    const auto p_cpu = p.to(torch::kCPU).contiguous(),
               ids_cpu = ids.to(torch::kCPU, torch::kInt32).contiguous();
    for (std::size_t r = 0; r < rows[i].size(); ++r) {
      TopTokens top;
      std::copy_n(p_cpu.data_ptr<float>() + r * n_top, n_top, top.probabilities.begin());
      std::copy_n(ids_cpu.data_ptr<std::int32_t>() + r * n_top, n_top, top.tokens.begin());
      out.push_back(top);
    }
  }
  return out;
}

/// likeliest() of one model, from the cache if it is there.
std::vector<TopTokens> known_or_likeliest(Subject& subject, const Suite& suite,
                                          const std::vector<std::size_t>& begin,
                                          const std::vector<std::size_t>& indices, Cache& cache,
                                          const EvaluateOptions& options,
                                          const Progress& progress) {
  const auto which = hash_hex(
      {reinterpret_cast<const char*>(indices.data()), indices.size() * sizeof(indices[0])});
  const std::string key =
      cache_key(subject, suite.hash, fmt::format("top {} at {}", kTopTokens, which));
  std::vector<TopTokens> out(indices.size());
  if (const auto bytes = cache.find("top", key);
      bytes && bytes->size() == out.size() * sizeof(TopTokens)) {
    std::memcpy(out.data(), bytes->data(), bytes->size());
    return out;
  }
  out = likeliest(subject.model(), suite, begin, indices, options, progress);
  cache.store("top", key,
              {reinterpret_cast<const char*>(out.data()), out.size() * sizeof(TopTokens)});
  return out;
}

}  // namespace

Histogram kld_histogram(const Positions& positions) {
  Histogram out;
  out.edges.push_back(0);
  for (int i = kFirstDecade * kBinsPerDecade; i <= kLastDecade * kBinsPerDecade; ++i)
    out.edges.push_back(std::pow(10.0, static_cast<double>(i) / kBinsPerDecade));
  out.edges.push_back(std::numeric_limits<double>::infinity());
  out.counts.assign(out.edges.size() - 1, 0);
  for (const double kld : positions.kld) {
    // rounding may leave a KLD just below 0
    const auto above = std::upper_bound(out.edges.begin(), out.edges.end(), std::max(0.0, kld));
    ++out.counts[std::min<std::size_t>(above - out.edges.begin(), out.counts.size()) - 1];
  }
  return out;
}

ByPosition kld_by_position(const Positions& positions, const Suite& suite) {
  ByPosition out;
  // Two bins an octave: early positions differ most, later ones need more tokens for a mean that
  // stands.
  for (std::int64_t edge = 1; edge <= std::int64_t{1} << 40; edge *= 2) {
    out.edges.push_back(edge);
    if (edge >= 2) out.edges.push_back(edge + edge / 2);
  }
  out.tokens.assign(out.edges.size() - 1, 0);
  out.kld.assign(out.edges.size() - 1, 0.0);
  std::size_t index = 0, used = 0;
  for (const auto& item : suite.items) {
    for (std::int64_t position = item.first_scored;
         position < static_cast<std::int64_t>(item.tokens.size()); ++position, ++index) {
      const auto bin =
          static_cast<std::size_t>(std::upper_bound(out.edges.begin(), out.edges.end(),
                                                    std::max<std::int64_t>(1, position)) -
                                   out.edges.begin()) -
          1;
      ++out.tokens[bin];
      out.kld[bin] += positions.kld[index];
      used = std::max(used, bin + 1);
    }
  }
  out.edges.resize(used + 1);
  out.tokens.resize(used);
  out.kld.resize(used);
  for (std::size_t b = 0; b < used; ++b)
    if (out.tokens[b]) out.kld[b] /= static_cast<double>(out.tokens[b]);
  return out;
}

Details look_closely(Subject& reference, Subject& candidate, const Suite& suite,
                     const Positions& positions, Cache& cache, const EvaluateOptions& evaluate,
                     const DetailOptions& options, const Progress& progress) {
  Details out{kld_histogram(positions), kld_by_position(positions, suite), {}, {}};
  const auto begin = offsets_of(suite);
  const auto worst = largest(positions.kld, 0, positions.kld.size(), options.n_worst);
  std::map<std::size_t, Alternatives> wanted;
  for (auto index : worst) wanted[index];
  const std::size_t n_browsed = std::min(options.n_browsed, suite.items.size());
  for (std::size_t b = 0; b < n_browsed; ++b) {
    BrowsedItem shown;
    shown.item = b * suite.items.size() / n_browsed;
    shown.first_index = begin[shown.item];
    shown.n_tokens = std::min(options.n_browsed_tokens, suite.items[shown.item].n_scored());
    const auto n = static_cast<std::size_t>(
        std::ceil(options.share_with_alternatives * static_cast<double>(shown.n_tokens)));
    for (auto index :
         largest(positions.kld, shown.first_index, shown.first_index + shown.n_tokens, n))
      shown.alternatives.push_back({index, {}, {}});
    std::sort(shown.alternatives.begin(), shown.alternatives.end(),
              [](const auto& a, const auto& b) { return a.index < b.index; });
    for (const auto& a : shown.alternatives) wanted[a.index];
    out.browsed.push_back(std::move(shown));
  }

  std::vector<std::size_t> indices;
  for (const auto& [index, unused] : wanted) indices.push_back(index);
  const auto of_reference =
      known_or_likeliest(reference, suite, begin, indices, cache, evaluate, progress);
  const auto of_candidate =
      known_or_likeliest(candidate, suite, begin, indices, cache, evaluate, progress);
  for (std::size_t i = 0; i < indices.size(); ++i)
    wanted[indices[i]] = {indices[i], of_reference[i], of_candidate[i]};

  for (auto index : worst) {
    const auto item = static_cast<std::size_t>(std::upper_bound(begin.begin(), begin.end(), index) -
                                               begin.begin()) -
                      1;
    out.worst.push_back(
        {item, suite.items[item].first_scored + static_cast<std::int64_t>(index - begin[item]),
         wanted[index]});
  }
  for (auto& shown : out.browsed)
    for (auto& a : shown.alternatives) a = wanted[a.index];
  return out;
}

}  // namespace spectralquant::evaluate
