#include "spectralquant/evaluate/score.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/divergence.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::evaluate {
namespace {

// On a CPU, where each thread runs a batch of its own, so much that activations stay in its cache
// and matrix products are still efficient; an accelerator wants more at once.
constexpr std::int64_t kCpuBatchTokens = 512, kAcceleratorBatchTokens = 4096;

/// Items run together: indices into the suite, of similar length.
std::vector<std::vector<std::size_t>> make_batches(const Suite& suite,
                                                   const EvaluateOptions& options,
                                                   torch::Device device) {
  const std::int64_t batch_tokens = options.batch_tokens > 0 ? options.batch_tokens
                                    : device.is_cpu()        ? kCpuBatchTokens
                                                             : kAcceleratorBatchTokens;
  std::vector<std::size_t> order(suite.items.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return suite.items[a].tokens.size() < suite.items[b].tokens.size();
  });
  std::vector<std::vector<std::size_t>> batches;
  std::size_t longest = 0;
  for (std::size_t index : order) {
    const std::size_t length = suite.items[index].tokens.size();
    const bool fits = !batches.empty() && std::max(longest, length) * (batches.back().size() + 1) <=
                                              static_cast<std::size_t>(batch_tokens);
    if (!fits) batches.emplace_back(), longest = 0;
    longest = std::max(longest, length);
    batches.back().push_back(index);
  }
  return batches;
}

/// Tokens of a batch, [B, T], padded at the end: a causal model's earlier positions do not see the
/// padding.
torch::Tensor pad(const Suite& suite, const std::vector<std::size_t>& batch, torch::Device device) {
  std::size_t longest = 0;
  for (auto i : batch) longest = std::max(longest, suite.items[i].tokens.size());
  auto tokens = torch::zeros(
      {static_cast<std::int64_t>(batch.size()), static_cast<std::int64_t>(longest)}, torch::kInt64);
  auto view = tokens.accessor<std::int64_t, 2>();
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const auto& item = suite.items[batch[b]].tokens;
    for (std::size_t t = 0; t < item.size(); ++t) view[b][t] = item[t];
  }
  return tokens.to(device);
}

/// Hidden states of the scored positions, one [n, D] an item of the batch. What works position by
/// position at the end of the last block feeds nothing but the head, so it is computed for those
/// positions only.
std::vector<torch::Tensor> scored_hidden(model::Model& model, const Suite& suite,
                                         const std::vector<std::size_t>& batch) {
  const std::int64_t last = model.architecture().n_blocks() - 1;
  const auto parts = model.architecture().parts(last);
  std::size_t n_mixing = parts.size();
  while (n_mixing > 0 && !parts[n_mixing - 1].mixes_tokens) --n_mixing;
  auto x = model.embed(pad(suite, batch, model.device()));
  for (std::int64_t i = 0; i < last; ++i) x = model.block(i, x);
  for (std::size_t i = 0; i < n_mixing; ++i) x = model.part(last, i, x);
  std::vector<torch::Tensor> rows;
  std::vector<std::int64_t> sizes;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const auto& item = suite.items[batch[b]];
    rows.push_back(x[static_cast<std::int64_t>(b)].slice(
        0, item.first_scored - 1, static_cast<std::int64_t>(item.tokens.size()) - 1));
    sizes.push_back(rows.back().size(0));
  }
  x = torch::cat(rows).unsqueeze(0);
  for (std::size_t i = n_mixing; i < parts.size(); ++i) x = model.part(last, i, x);
  return model.final_norm(x).squeeze(0).split_with_sizes(sizes);
}

torch::Tensor scored_targets(const Suite& suite, const std::vector<std::size_t>& batch,
                             torch::Device device) {
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

Positions positions_of(const Divergence& divergence) {
  Positions part;
  part.loss = to_vector<float>(divergence.loss);
  part.kld = to_vector<float>(divergence.kld);
  part.delta_p = to_vector<float>(divergence.delta_p);
  part.same_top = to_vector<std::uint8_t>(divergence.same_top);
  return part;
}

/// Scores one batch. hidden: the reference's by item, [n, D] on the CPU.
Positions score_batch(model::Model& reference, model::Model* candidate, const Suite& suite,
                      const std::vector<std::size_t>& batch,
                      const std::vector<torch::Tensor>& hidden) {
  std::vector<torch::Tensor> rows;
  for (auto i : batch) rows.push_back(hidden[i]);
  const auto p_hidden = torch::cat(rows).to(reference.device(), reference.dtype());
  const auto q_hidden = candidate ? torch::cat(scored_hidden(*candidate, suite, batch)) : p_hidden;
  const auto targets = scored_targets(suite, batch, reference.device());
  const Predictions p = predictions(reference, p_hidden);
  if (!candidate) return positions_of(diverge(p, nullptr, targets));
  const Predictions q = predictions(*candidate, q_hidden);
  return positions_of(diverge(p, &q, targets));
}

/// The same against stored predictions.
Positions score_batch(const StoredLogits& stored, model::Model& candidate, const Suite& suite,
                      const std::vector<std::size_t>& batch) {
  std::vector<StoredRow> rows;
  for (auto i : batch)
    for (std::int64_t r = 0; r < stored.rows_per_window(); ++r)
      rows.push_back(stored.row(static_cast<std::int64_t>(i), r));
  const auto q = predictions(candidate, torch::cat(scored_hidden(candidate, suite, batch)));
  return positions_of(diverge(rows, q, scored_targets(suite, batch, candidate.device())));
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

/// Positions of the whole suite: what `score` gives for each batch of items, put in suite order.
Positions run(const Suite& suite, const EvaluateOptions& options, torch::Device device,
              const std::function<Positions(const std::vector<std::size_t>&)>& score,
              const Progress& progress) {
  torch::NoGradGuard no_grad;
  Positions out = sized(static_cast<std::size_t>(suite.n_scored));
  out.unit = units_of(suite);
  const auto begin = item_offsets(suite);
  const auto batches = make_batches(suite, options, device);
  const auto total = static_cast<std::uint64_t>(suite.n_scored);
  std::uint64_t done = 0;
  const auto tell = [&] {
    report(progress, {.phase = "score",
                      .item = suite.spec.name,
                      .done = done,
                      .total = total,
                      .unit = "tokens"});
  };
  tell();
  model::for_each_in_order(batches.size(), device, [&](std::size_t b) {
    return [&, b, part = score(batches[b])] {
      std::size_t from = 0;
      for (auto i : batches[b]) {
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

/// Scores the candidate, or the reference itself where there is none. `hidden`: the reference's, by
/// item.
Positions run(model::Model& reference, const std::vector<torch::Tensor>& hidden,
              model::Model* candidate, const Suite& suite, const EvaluateOptions& options,
              const Progress& progress) {
  TORCH_CHECK(hidden.size() == suite.items.size(), "the hidden states are of another suite");
  return run(
      suite, options, reference.device(),
      [&](const auto& batch) { return score_batch(reference, candidate, suite, batch, hidden); },
      progress);
}

void require_vocabulary(model::Model& candidate, std::int64_t vocab_size) {
  const auto own = candidate.architecture().vocab_size();
  if (own == vocab_size) return;
  throw bad_input(
      fmt::format("the candidate's vocabulary has {} entries, the reference's {}", own, vocab_size),
      candidate.weights().file().path(), "compare quantizations of one model only");
}

}  // namespace

std::vector<std::int32_t> units_of(const Suite& suite) {
  std::vector<std::int32_t> units;
  for (const auto& item : suite.items)
    units.insert(units.end(), item.n_scored(), static_cast<std::int32_t>(item.document));
  return units;
}

std::vector<torch::Tensor> hidden_states(model::Model& model, const Suite& suite,
                                         const EvaluateOptions& options, const Progress& progress) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> hidden(suite.items.size());
  const auto batches = make_batches(suite, options, model.device());
  std::uint64_t done = 0;
  const auto tell = [&] {
    report(progress, {.phase = "run",
                      .item = suite.spec.name,
                      .done = done,
                      .total = static_cast<std::uint64_t>(suite.n_scored),
                      .unit = "tokens"});
  };
  tell();
  model::for_each_in_order(batches.size(), model.device(), [&](std::size_t b) {
    auto rows = scored_hidden(model, suite, batches[b]);
    for (std::size_t i = 0; i < rows.size(); ++i)
      hidden[batches[b][i]] = rows[i].to(torch::kCPU, torch::kFloat32).contiguous().clone();
    return [&, b] {
      for (auto i : batches[b]) done += suite.items[i].n_scored();
      tell();
    };
  });
  return hidden;
}

Positions measure(model::Model& reference, const std::vector<torch::Tensor>& hidden,
                  const Suite& suite, const EvaluateOptions& options, const Progress& progress) {
  return run(reference, hidden, nullptr, suite, options, progress);
}

Positions compare(model::Model& reference, const std::vector<torch::Tensor>& hidden,
                  model::Model& candidate, const Suite& suite, const EvaluateOptions& options,
                  const Progress& progress) {
  require_vocabulary(candidate, reference.architecture().vocab_size());
  return run(reference, hidden, &candidate, suite, options, progress);
}

Positions measure(const StoredLogits& stored, const Suite& suite) {
  Positions out = sized(static_cast<std::size_t>(suite.n_scored));
  out.unit = units_of(suite);
  std::fill(out.same_top.begin(), out.same_top.end(), std::uint8_t{1});
  std::size_t next = 0;
  for (std::size_t w = 0; w < suite.items.size(); ++w) {
    const auto& item = suite.items[w];
    for (std::size_t i = 0; i < item.n_scored(); ++i)
      out.loss[next++] =
          stored_loss(stored.row(static_cast<std::int64_t>(w), static_cast<std::int64_t>(i)),
                      item.tokens[static_cast<std::size_t>(item.first_scored) + i]);
  }
  return out;
}

Positions compare(const StoredLogits& stored, model::Model& candidate, const Suite& suite,
                  const EvaluateOptions& options, const Progress& progress) {
  require_vocabulary(candidate, stored.vocab_size());
  return run(
      suite, options, candidate.device(),
      [&](const auto& batch) { return score_batch(stored, candidate, suite, batch); }, progress);
}

}  // namespace spectralquant::evaluate
