#include "spectralquant/evaluate/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/divergence.h"
#include "spectralquant/evaluate/statistics.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::evaluate {
namespace {

// On a CPU, where each thread runs a batch of its own, so much that activations stay in its cache and matrix products are still
// efficient; an accelerator wants more at once.
constexpr std::int64_t kCpuBatchTokens = 512, kAcceleratorBatchTokens = 4096;

/// Items run together: indices into the suite, of similar length.
std::vector<std::vector<std::size_t>> make_batches(const Suite& suite, std::int64_t batch_tokens) {
  std::vector<std::size_t> order(suite.items.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return suite.items[a].tokens.size() < suite.items[b].tokens.size(); });
  std::vector<std::vector<std::size_t>> batches;
  std::size_t longest = 0;
  for (std::size_t index : order) {
    const std::size_t length = suite.items[index].tokens.size();
    const bool fits = !batches.empty() && std::max(longest, length) * (batches.back().size() + 1) <= static_cast<std::size_t>(batch_tokens);
    if (!fits) batches.emplace_back(), longest = 0;
    longest = std::max(longest, length);
    batches.back().push_back(index);
  }
  return batches;
}

/// Tokens of a batch, [B, T], padded at the end: a causal model's earlier positions do not see the padding.
torch::Tensor pad(const Suite& suite, const std::vector<std::size_t>& batch, torch::Device device) {
  std::size_t longest = 0;
  for (auto i : batch) longest = std::max(longest, suite.items[i].tokens.size());
  auto tokens = torch::zeros({static_cast<std::int64_t>(batch.size()), static_cast<std::int64_t>(longest)}, torch::kInt64);
  auto view = tokens.accessor<std::int64_t, 2>();
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const auto& item = suite.items[batch[b]].tokens;
    for (std::size_t t = 0; t < item.size(); ++t) view[b][t] = item[t];
  }
  return tokens.to(device);
}

/// Hidden states of the scored positions, [n, D], in the order of the batch. The feed-forward half of the last block works position by
/// position and feeds nothing but the head, so it is computed for those positions only.
torch::Tensor scored_hidden(model::Model& model, const Suite& suite, const std::vector<std::size_t>& batch, const torch::Tensor& tokens) {
  const std::int64_t last = model.architecture().n_blocks() - 1;
  auto x = model.embed(tokens);
  for (std::int64_t i = 0; i < last; ++i) x = model.block(i, x);
  x = model.half(last, 0, x);
  std::vector<torch::Tensor> rows;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const auto& item = suite.items[batch[b]];
    rows.push_back(x[static_cast<std::int64_t>(b)].slice(0, item.first_scored - 1, static_cast<std::int64_t>(item.tokens.size()) - 1));
  }
  return model.final_norm(model.half(last, 1, torch::cat(rows).unsqueeze(0))).squeeze(0);
}

torch::Tensor scored_targets(const Suite& suite, const std::vector<std::size_t>& batch, torch::Device device) {
  std::vector<std::int64_t> targets;
  for (auto i : batch) {
    const auto& item = suite.items[i];
    targets.insert(targets.end(), item.tokens.begin() + item.first_scored, item.tokens.end());
  }
  return torch::tensor(targets, torch::kInt64).to(device);
}

Predictions predictions(model::Model& model, const torch::Tensor& hidden) {
  return {hidden, model.weights().get(model.architecture().head_name())};
}

template <typename T>
std::vector<T> to_vector(const torch::Tensor& values) {
  const auto cpu = values.to(torch::kCPU).contiguous();
  return {cpu.data_ptr<T>(), cpu.data_ptr<T>() + cpu.numel()};
}

Positions sized(std::size_t n) {
  Positions out;
  out.loss.resize(n);
  out.kld.resize(n);
  out.delta_p.resize(n);
  out.same_top.resize(n);
  out.unit.resize(n);
  return out;
}

/// Scores one batch. hidden: the reference's, [n, D] on the CPU.
Positions score_batch(model::Model& reference, model::Model* candidate, const Suite& suite, const std::vector<std::size_t>& batch,
                      const torch::Tensor& tokens, const torch::Tensor& hidden) {
  const auto p_hidden = hidden.to(reference.device(), reference.dtype());
  const auto q_hidden = candidate ? scored_hidden(*candidate, suite, batch, tokens) : p_hidden;
  const auto targets = scored_targets(suite, batch, reference.device());
  const Predictions p = predictions(reference, p_hidden);
  Divergence divergence;
  if (candidate) {
    const Predictions q = predictions(*candidate, q_hidden);
    divergence = diverge(p, &q, targets);
  } else {
    divergence = diverge(p, nullptr, targets);
  }
  Positions part;
  part.loss = to_vector<float>(divergence.loss);
  part.kld = to_vector<float>(divergence.kld);
  part.delta_p = to_vector<float>(divergence.delta_p);
  part.same_top = to_vector<std::uint8_t>(divergence.same_top);
  return part;
}

/// Runs the candidate, or the reference itself where there is none; then its hidden states are put into `hidden`.
Positions run(model::Model& reference, std::vector<torch::Tensor>& hidden, model::Model* candidate, const Suite& suite, const EvaluateOptions& options,
              const Progress& progress) {
  torch::NoGradGuard no_grad;
  Positions out = sized(static_cast<std::size_t>(suite.n_scored));
  // Where each item's positions begin in suite order; batches are run in another order.
  std::vector<std::size_t> begin(suite.items.size());
  std::size_t total = 0;
  for (std::size_t i = 0; i < suite.items.size(); ++i) {
    begin[i] = total;
    const std::size_t n = suite.items[i].tokens.size() - suite.items[i].first_scored;
    std::fill_n(out.unit.begin() + total, n, static_cast<std::int32_t>(suite.items[i].document));
    total += n;
  }
  const auto batches = make_batches(suite, options.batch_tokens > 0 ? options.batch_tokens : reference.device().is_cpu() ? kCpuBatchTokens : kAcceleratorBatchTokens);
  if (!candidate) hidden.resize(batches.size());
  TORCH_CHECK(hidden.size() == batches.size(), "the reference was run with other options");
  std::uint64_t done = 0;
  const auto tell = [&] { report(progress, {.phase = "score", .item = suite.spec.name, .done = done, .total = total, .unit = "tokens"}); };
  tell();
  model::for_each_in_order(batches.size(), reference.device(), [&](std::size_t b) {
    const auto& batch = batches[b];
    const auto tokens = pad(suite, batch, reference.device());
    if (!candidate) hidden[b] = scored_hidden(reference, suite, batch, tokens).to(torch::kCPU, torch::kFloat32);
    return [&, part = score_batch(reference, candidate, suite, batch, tokens, hidden[b])] {
      std::size_t from = 0;
      for (auto i : batch) {
        const std::size_t n = suite.items[i].tokens.size() - suite.items[i].first_scored;
        std::copy_n(part.loss.begin() + from, n, out.loss.begin() + begin[i]);
        std::copy_n(part.kld.begin() + from, n, out.kld.begin() + begin[i]);
        std::copy_n(part.delta_p.begin() + from, n, out.delta_p.begin() + begin[i]);
        std::copy_n(part.same_top.begin() + from, n, out.same_top.begin() + begin[i]);
        from += n;
      }
      done += from;
      tell();
    };
  });
  return out;
}

double mean_of(const std::vector<double>& means) { return means[0]; }

}  // namespace

ReferenceRun measure(model::Model& reference, const Suite& suite, const EvaluateOptions& options, const Progress& progress) {
  ReferenceRun out;
  out.positions = run(reference, out.hidden, nullptr, suite, options, progress);
  return out;
}

Positions compare(model::Model& reference, const ReferenceRun& of_reference, model::Model& candidate, const Suite& suite, const EvaluateOptions& options,
                  const Progress& progress) {
  const auto vocab = reference.architecture().vocab_size(), other = candidate.architecture().vocab_size();
  if (other != vocab) {
    throw bad_input(fmt::format("the candidate's vocabulary has {} entries, the reference's {}", other, vocab), candidate.weights().file().path(),
                    "compare quantizations of one model only");
  }
  std::vector<torch::Tensor> hidden = of_reference.hidden;
  return run(reference, hidden, &candidate, suite, options, progress);
}

Score summarize(const Positions& candidate, const Positions* reference, const Positions* baseline, const EvaluateOptions& options) {
  Score score;
  score.n_tokens = static_cast<std::int64_t>(candidate.loss.size());
  UnitSums counts;
  counts.add(std::vector<float>(candidate.loss.size(), 1.0f), candidate.unit);
  const auto interval = [&](auto fill, auto statistic) {
    UnitSums units;
    fill(units);
    units.n_tokens = counts.sums[0];
    return bootstrap(units, statistic, options.bootstrap_samples, options.seed);
  };
  score.loss = interval([&](UnitSums& u) { u.add(candidate.loss, candidate.unit); }, mean_of);
  score.kld = interval([&](UnitSums& u) { u.add(candidate.kld, candidate.unit); }, mean_of);
  score.top1_agreement = interval([&](UnitSums& u) { u.add(candidate.same_top, candidate.unit); }, mean_of);
  score.kld_p90 = percentile(candidate.kld, 0.90);
  score.kld_p99 = percentile(candidate.kld, 0.99);
  score.kld_max = percentile(candidate.kld, 1.0);
  double squares = 0;
  for (float d : candidate.delta_p) squares += static_cast<double>(d) * d;
  score.rms_delta_p = candidate.delta_p.empty() ? 0 : std::sqrt(squares / candidate.delta_p.size());
  if (reference && baseline) {
    score.gap_recovery = interval(
        [&](UnitSums& u) {
          u.add(candidate.loss, candidate.unit);
          u.add(reference->loss, candidate.unit);
          u.add(baseline->loss, candidate.unit);
        },
        [](const std::vector<double>& m) { return (m[2] - m[0]) / (m[2] - m[1]); });
    score.has_gap_recovery = true;
  }
  return score;
}

}  // namespace spectralquant::evaluate
