#include "spectralquant/model/sampling.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <random>

#include "spectralquant/core/error.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::model {
namespace {

// What a batch may take, keys, values and the distributions over the vocabulary counted. The
// matrices are read once per token whatever the batch, so a big one is fast; past these numbers of
// sequences nothing is gained.
constexpr std::int64_t kBatchBytesOnCpu = std::int64_t{512} << 20, kMaxBatchOnCpu = 64;
// On an accelerator a token takes the same time for one sequence and for a thousand: launching its
// kernels is what takes it.
constexpr std::int64_t kBatchBytes = std::int64_t{16} << 30, kMaxBatch = 2048;

std::int64_t choose_batch(Model& model, std::int64_t n_windows, const SamplingOptions& options) {
  if (options.batch > 0) return options.batch;
  const auto& architecture = model.architecture();
  const auto cache =
      options.window_tokens * architecture.cache_values() * std::int64_t{sizeof(float)};
  // logits, probabilities and their sums
  const auto distribution = architecture.vocab_size() * 4 * std::int64_t{sizeof(double)};
  const std::int64_t n_processes = options.group.size();
  std::int64_t largest =
      std::clamp<std::int64_t>((n_windows + n_processes - 1) / n_processes, 1, kMaxBatch);
  std::int64_t bytes = kBatchBytes;
  if (model.device().is_cpu()) {  // batches run side by side, one a thread
    const std::int64_t n_threads = at::get_num_threads() * n_processes;
    largest = std::clamp<std::int64_t>((n_windows + n_threads - 1) / n_threads, 1, kMaxBatchOnCpu);
    bytes = kBatchBytesOnCpu;
  }
  return std::clamp<std::int64_t>(bytes / (cache + distribution), 1, largest);
}

void check(const Model& model, std::int64_t n_windows, const SamplingOptions& options) {
  const auto usage = [](std::string problem) {
    return Error(ErrorCode::kBadUsage, std::move(problem));
  };
  if (n_windows < 0) throw usage(fmt::format("{} windows cannot be sampled", n_windows));
  if (options.window_tokens < 1)
    throw usage(fmt::format("windows of {} tokens cannot be sampled", options.window_tokens));
  if (!(options.temperature >= 0))
    throw usage(fmt::format("temperature is {}, it must be 0 (the likeliest token) or above",
                            options.temperature));
  if (options.batch < 0)
    throw usage(fmt::format("a batch of {} sequences is not possible", options.batch));
  if (options.first_token < 0 || options.first_token >= model.architecture().vocab_size()) {
    throw usage(fmt::format("first token {} is outside the vocabulary of {}", options.first_token,
                            model.architecture().vocab_size()));
  }
}

/// A stream of uniform numbers of its own for every window, so that what a window draws does not
/// depend on the batch.
class Dice {
 public:
  Dice(std::uint64_t seed, std::int64_t window) {
    std::seed_seq mixed{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                        static_cast<std::uint32_t>(window),
                        static_cast<std::uint32_t>(window >> 32)};
    engine_.seed(mixed);
  }
  // in [0, 1); std's distributions differ between libraries
  double next() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 engine_;
};

/// logits: [B, V]; uniforms: float64 [B, 1] → int64 [B].
torch::Tensor draw(const torch::Tensor& logits, double temperature, const torch::Tensor& uniforms) {
  if (temperature == 0) return logits.argmax(-1);
  const auto shares =
      torch::softmax(logits.to(torch::kFloat32) / temperature, -1).cumsum(-1, torch::kFloat64);
  const auto total = shares.narrow(-1, shares.size(-1) - 1, 1);
  return (shares <= uniforms * total).sum(-1).clamp_max(shares.size(-1) - 1);
}

using Sequences = std::vector<std::vector<std::int32_t>>;

/// Every process has written some of the windows; afterwards each has all of them.
void share_windows(Sequences& windows, const SamplingOptions& options) {
  if (options.group.alone() || windows.empty()) return;
  torch::Tensor all = torch::zeros(
      {static_cast<std::int64_t>(windows.size()), options.window_tokens}, torch::kInt32);
  const auto length = static_cast<std::size_t>(options.window_tokens);
  for (std::size_t i = 0; i < windows.size(); ++i)
    std::copy(windows[i].begin(), windows[i].end(), all.data_ptr<std::int32_t>() + i * length);
  options.group.sum(all);
  for (std::size_t i = 0; i < windows.size(); ++i)
    windows[i].assign(all.data_ptr<std::int32_t>() + i * length,
                      all.data_ptr<std::int32_t>() + (i + 1) * length);
}

/// Writes on from prompts of one length, [n_windows][L ≥ 1]; what it returns does not hold them.
Sequences generate(Model& model, std::int64_t n_windows,
                   const std::function<torch::Tensor(std::int64_t first, std::int64_t n)>& prompts,
                   const SamplingOptions& options, const Progress& progress) {
  check(model, n_windows, options);
  torch::NoGradGuard no_grad;
  const auto& architecture = model.architecture();
  // the processes may have different numbers of threads
  torch::Tensor agreed = torch::tensor({choose_batch(model, n_windows, options)});
  options.group.broadcast(agreed, 0);
  const auto batch = agreed.item<std::int64_t>();
  const auto [begin, end] =
      options.group.share(static_cast<std::size_t>((n_windows + batch - 1) / batch));
  const std::int64_t own_windows = std::min(n_windows, static_cast<std::int64_t>(end) * batch) -
                                   std::min(n_windows, static_cast<std::int64_t>(begin) * batch);
  Sequences windows(static_cast<std::size_t>(n_windows));
  std::mutex mutex;
  std::uint64_t done = 0;
  for_each_in_order(end - begin, model.device(), [&, begin = begin](std::size_t number) {
    const auto first = static_cast<std::int64_t>(begin + number) * batch,
               n_sequences = std::min(batch, n_windows - first);
    std::vector<Dice> dice;
    for (std::int64_t i = 0; i < n_sequences; ++i) dice.emplace_back(options.seed, first + i);
    std::vector<BlockState> states(architecture.n_blocks());
    auto uniforms = torch::empty({n_sequences, 1}, torch::kFloat64);
    auto tokens = prompts(first, n_sequences);  // [B, L], then what was written last, [B, 1]
    auto written = torch::empty({n_sequences, options.window_tokens}, tokens.options());
    for (std::int64_t t = 0; t < options.window_tokens; ++t) {
      auto x = model.embed(tokens);
      for (std::int64_t i = 0; i < architecture.n_blocks(); ++i)
        x = model.block(i, x, nullptr, &states[i]);
      const auto last = x.narrow(1, x.size(1) - 1, 1);
      const auto logits = model.head(model.final_norm(last)).squeeze(1);
      for (std::int64_t i = 0; i < n_sequences; ++i)
        uniforms.data_ptr<double>()[i] = dice[i].next();
      tokens = draw(logits, options.temperature, uniforms.to(model.device())).unsqueeze(1);
      written.select(1, t).copy_(tokens.squeeze(1));
      const std::lock_guard lock(mutex);
      done += static_cast<std::uint64_t>(n_sequences);
      report(progress, {"sample", "", done,
                        static_cast<std::uint64_t>(own_windows * options.window_tokens), "tokens"});
    }
    return
        [&windows, first, n_sequences, ids = written.to(torch::kCPU, torch::kInt32).contiguous()] {
          for (std::int64_t i = 0; i < n_sequences; ++i) {
            const auto* row = ids.data_ptr<std::int32_t>() + i * ids.size(1);
            windows[static_cast<std::size_t>(first + i)].assign(row, row + ids.size(1));
          }
        };
  });
  share_windows(windows, options);
  return windows;
}

}  // namespace

std::vector<std::vector<std::int32_t>> sample(Model& model, std::int64_t n_windows,
                                              const SamplingOptions& options,
                                              const Progress& progress) {
  const auto prompts = [&](std::int64_t, std::int64_t n) {
    return torch::full({n, 1}, options.first_token,
                       torch::TensorOptions().dtype(torch::kInt64).device(model.device()));
  };
  return generate(model, n_windows, prompts, options, progress);
}

std::vector<std::vector<std::int32_t>> continue_greedily(
    Model& model, const std::vector<std::vector<std::int32_t>>& prompts, std::int64_t n_tokens,
    const Progress& progress) {
  for (const auto& prompt : prompts) {
    if (prompt.empty() || prompt.size() != prompts[0].size())
      throw Error(ErrorCode::kBadUsage,
                  fmt::format("prompts of {} and {} tokens cannot be continued together",
                              prompts[0].size(), prompt.size()));
  }
  SamplingOptions options;
  options.window_tokens = n_tokens;
  options.temperature = 0;
  return generate(
      model, static_cast<std::int64_t>(prompts.size()),
      [&](std::int64_t first, std::int64_t n) {
        return to_tensor(prompts, static_cast<std::size_t>(first), static_cast<std::size_t>(n),
                         model.device());
      },
      options, progress);
}

}  // namespace spectralquant::model
