#include "spectralquant/evaluate/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "spectralquant/core/error.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::evaluate {
namespace {

// Logits of one slice of positions: four float32 arrays of [positions, vocabulary] are alive at once, so 256 MiB here is about 1 GiB
// at the worst, whatever the vocabulary.
constexpr std::int64_t kSliceBytes = 64 << 20;
constexpr std::int64_t kDefaultBatchTokens = 2048;

/// Items run together: indices into the suite, of similar length.
std::vector<std::vector<std::size_t>> make_batches(const Suite& suite, const EvaluateOptions& options) {
  const std::int64_t batch_tokens = options.batch_tokens > 0 ? options.batch_tokens : kDefaultBatchTokens;
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

/// Hidden states of the scored positions, one [n, D] an item of the batch.
std::vector<torch::Tensor> scored_hidden(model::Model& model, const Suite& suite, const std::vector<std::size_t>& batch) {
  auto x = model.embed(pad(suite, batch, model.device()));
  for (std::int64_t i = 0; i < model.architecture().n_blocks(); ++i) x = model.block(i, x);
  x = model.final_norm(x);
  std::vector<torch::Tensor> rows;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const auto& item = suite.items[batch[b]];
    rows.push_back(x[static_cast<std::int64_t>(b)].slice(0, item.first_scored - 1, static_cast<std::int64_t>(item.tokens.size()) - 1));
  }
  return rows;
}

torch::Tensor scored_targets(const Suite& suite, const std::vector<std::size_t>& batch, torch::Device device) {
  std::vector<std::int64_t> targets;
  for (auto i : batch) {
    const auto& item = suite.items[i];
    targets.insert(targets.end(), item.tokens.begin() + item.first_scored, item.tokens.end());
  }
  return torch::tensor(targets, torch::kInt64).to(device);
}

struct Slice {
  torch::Tensor loss, kld, delta_p, same_top;
};

/// One slice of positions. p_hidden of the reference, q_hidden of the candidate; both [n, D].
Slice score_slice(model::Model& reference, model::Model* candidate, const torch::Tensor& p_hidden, const torch::Tensor& q_hidden,
                  const torch::Tensor& targets) {
  const auto log_p = reference.head(p_hidden).to(torch::kFloat32).log_softmax(-1);
  const auto true_p = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
  if (!candidate) return {-true_p, torch::zeros_like(true_p), torch::zeros_like(true_p), torch::ones_like(true_p, torch::kUInt8)};
  const auto log_q = candidate->head(q_hidden).to(torch::kFloat32).log_softmax(-1);
  const auto true_q = log_q.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
  const auto kld = (log_p.exp() * (log_p - log_q)).sum(-1);
  const auto same = log_p.argmax(-1).eq(log_q.argmax(-1)).to(torch::kUInt8);
  return {-true_q, kld, true_q.exp() - true_p.exp(), same};
}

template <typename T>
void append(std::vector<T>& out, const torch::Tensor& values, std::size_t at) {
  const auto cpu = values.to(torch::kCPU).contiguous();
  std::copy_n(cpu.data_ptr<T>(), cpu.numel(), out.begin() + at);
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

/// Scores one batch. hidden: the reference's by item, [n, D] on the CPU.
Positions score_batch(model::Model& reference, model::Model* candidate, const Suite& suite, const std::vector<std::size_t>& batch,
                      const std::vector<torch::Tensor>& hidden) {
  std::vector<torch::Tensor> rows;
  for (auto i : batch) rows.push_back(hidden[i]);
  const auto p_hidden = torch::cat(rows).to(reference.device(), reference.dtype());
  const auto q_hidden = candidate ? torch::cat(scored_hidden(*candidate, suite, batch)) : p_hidden;
  const auto targets = scored_targets(suite, batch, reference.device());
  const std::int64_t n = targets.size(0), slice = std::max<std::int64_t>(1, kSliceBytes / (4 * reference.architecture().vocab_size()));
  Positions part = sized(static_cast<std::size_t>(n));
  for (std::int64_t first = 0; first < n; first += slice) {
    const std::int64_t last = std::min(first + slice, n);
    const auto s =
        score_slice(reference, candidate, p_hidden.slice(0, first, last), q_hidden.slice(0, first, last), targets.slice(0, first, last));
    append(part.loss, s.loss, first);
    append(part.kld, s.kld, first);
    append(part.delta_p, s.delta_p, first);
    append(part.same_top, s.same_top, first);
  }
  return part;
}

/// Where each item's positions begin in suite order.
std::vector<std::size_t> item_offsets(const Suite& suite) {
  std::vector<std::size_t> begin;
  std::size_t total = 0;
  for (const auto& item : suite.items) {
    begin.push_back(total);
    total += item.n_scored();
  }
  return begin;
}

/// Scores the candidate, or the reference itself where there is none. `hidden`: the reference's, by item.
Positions run(model::Model& reference, const std::vector<torch::Tensor>& hidden, model::Model* candidate, const Suite& suite,
              const EvaluateOptions& options, const Progress& progress) {
  torch::NoGradGuard no_grad;
  TORCH_CHECK(hidden.size() == suite.items.size(), "the hidden states are of another suite");
  Positions out = sized(static_cast<std::size_t>(suite.n_scored));
  out.unit = units_of(suite);
  const auto begin = item_offsets(suite);
  const auto batches = make_batches(suite, options);
  const auto total = static_cast<std::uint64_t>(suite.n_scored);
  std::uint64_t done = 0;
  const auto tell = [&] { report(progress, {.phase = "score", .item = suite.spec.name, .done = done, .total = total, .unit = "tokens"}); };
  tell();
  model::for_each_in_order(batches.size(), reference.device(), [&](std::size_t b) {
    const auto& batch = batches[b];
    return [&, part = score_batch(reference, candidate, suite, batch, hidden)] {
      std::size_t from = 0;
      for (auto i : batch) {
        const std::size_t n = suite.items[i].n_scored();
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

}  // namespace

std::vector<std::int32_t> units_of(const Suite& suite) {
  std::vector<std::int32_t> units;
  for (const auto& item : suite.items) units.insert(units.end(), item.n_scored(), static_cast<std::int32_t>(item.document));
  return units;
}

std::vector<torch::Tensor> hidden_states(model::Model& model, const Suite& suite, const EvaluateOptions& options,
                                         const Progress& progress) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> hidden(suite.items.size());
  const auto batches = make_batches(suite, options);
  std::uint64_t done = 0;
  const auto tell = [&] {
    report(progress,
           {.phase = "run", .item = suite.spec.name, .done = done, .total = static_cast<std::uint64_t>(suite.n_scored), .unit = "tokens"});
  };
  tell();
  model::for_each_in_order(batches.size(), model.device(), [&](std::size_t b) {
    auto rows = scored_hidden(model, suite, batches[b]);
    for (std::size_t i = 0; i < rows.size(); ++i) hidden[batches[b][i]] = rows[i].to(torch::kCPU, torch::kFloat32).contiguous().clone();
    return [&, b] {
      for (auto i : batches[b]) done += suite.items[i].n_scored();
      tell();
    };
  });
  return hidden;
}

Positions measure(model::Model& reference, const std::vector<torch::Tensor>& hidden, const Suite& suite, const EvaluateOptions& options,
                  const Progress& progress) {
  return run(reference, hidden, nullptr, suite, options, progress);
}

Positions compare(model::Model& reference, const std::vector<torch::Tensor>& hidden, model::Model& candidate, const Suite& suite,
                  const EvaluateOptions& options, const Progress& progress) {
  const auto vocab = reference.architecture().vocab_size(), other = candidate.architecture().vocab_size();
  if (other != vocab) {
    throw bad_input(fmt::format("the candidate's vocabulary has {} entries, the reference's {}", other, vocab),
                    candidate.weights().file().path(), "compare quantizations of one model only");
  }
  return run(reference, hidden, &candidate, suite, options, progress);
}

}  // namespace spectralquant::evaluate
