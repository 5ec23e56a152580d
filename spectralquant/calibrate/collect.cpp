#include "spectralquant/calibrate/collect.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/output_moments.h"
#include "spectralquant/calibrate/pages.h"
#include "spectralquant/calibrate/signal_checks.h"
#include "spectralquant/calibrate/streams.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::calibrate {

void require_windows(const Windows& windows) {
  if (windows.empty() || windows[0].empty())
    throw Error(ErrorCode::kBadUsage, "there is no calibration text", {},
                "give at least one window of tokens");
  for (const auto& window : windows) {
    if (window.size() != windows[0].size())
      throw Error(
          ErrorCode::kBadUsage,
          fmt::format("calibration windows of {} and {} tokens", windows[0].size(), window.size()),
          {}, "cut the text into windows of equal length");
  }
}

std::int64_t batch_windows(std::int64_t asked, const Windows& windows, const model::Model& model) {
  if (asked > 0) return asked;
  const std::int64_t tokens = model.device().is_cpu() ? kBatchTokens : kBatchTokensOnDevice;
  return std::max<std::int64_t>(1, tokens / static_cast<std::int64_t>(windows[0].size()));
}

std::size_t n_batches(const Windows& windows, std::int64_t batch) {
  return (windows.size() + static_cast<std::size_t>(batch) - 1) / static_cast<std::size_t>(batch);
}

Streams Streams::embed(model::Model& model, const Windows& windows, std::int64_t batch,
                       const distribute::Group& group, const Spill& spill, std::int64_t n_kept) {
  torch::NoGradGuard no_grad;
  Streams streams;
  const auto [begin, end] = group.share(n_batches(windows, batch));
  streams.first_batch = begin;
  const std::int64_t values = static_cast<std::int64_t>((end - begin) * windows[0].size()) * batch *
                              model.architecture().hidden_size() * n_kept;
  streams.choose_place(values * static_cast<std::int64_t>(sizeof(float)), model.device(), spill);
  for (std::size_t i = begin; i < end; ++i) {
    const std::size_t first = i * static_cast<std::size_t>(batch),
                      count = std::min(windows.size() - first, static_cast<std::size_t>(batch));
    streams.tokens.push_back(model::to_tensor(windows, first, count, torch::kCPU));
    streams.pieces.push_back(streams.kept(model.embed(streams.tokens.back().to(model.device()))));
  }
  return streams;
}

void Streams::choose_place(std::int64_t bytes, torch::Device device, const Spill& spill) {
  if (bytes <= kStreamBytesOnDevice) home = device;
  if (home.is_cpu() && spill.wanted(static_cast<std::uint64_t>(bytes))) files = spill;
}

Streams Streams::draft(model::Model& model, std::int64_t block) const {
  torch::NoGradGuard no_grad;
  Streams out;
  out.tokens = tokens;
  out.home = home;
  out.files = files;
  out.first_batch = first_batch;
  out.pieces.resize(pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i)
    out.pieces[i] =
        out.kept(model.draft_input(block, tokens[i], model.final_norm(on_device(i, model))));
  return out;
}

std::vector<std::int64_t> draft_blocks(const model::Architecture& architecture,
                                       const Windows& windows) {
  std::vector<std::int64_t> blocks;
  for (std::int64_t i = 0; windows[0].size() > 1 && i < architecture.n_draft_blocks(); ++i)
    blocks.push_back(architecture.n_blocks() + i);
  return blocks;
}

std::int64_t Streams::n_tokens() const {
  std::int64_t n = 0;
  for (const auto& piece : pieces) n += piece.size(0) * piece.size(1);
  return n;
}

namespace {

/// Puts H of a stage's matrices into the signals, and gives the sums up. moments: of its readers.
void keep_inputs(const model::Stage& stage, std::vector<Moment>& moments, model::Model& model,
                 const CollectOptions& options, Signals& signals) {
  const bool experts = stage.size() > 1;
  Moment all;
  for (Moment& moment : moments) {
    moment.sum_over(options.group, model.device());
    if (experts) all.add(moment);
  }
  for (std::size_t i = 0; i < stage.size(); ++i) {
    const torch::Tensor h =
        options.spill.put(experts ? moments[i].mean_beside(all) : moments[i].mean());
    for (const model::MatrixId& id : stage[i]) {
      signals.matrices[id].h = h;
      if (experts) signals.matrices[id].n_tokens = moments[i].count();
    }
    moments[i] = Moment();
  }
}

/// Moves the streams behind a block; with `signals`, H of its matrices is gathered on the way.
/// `tell` is called once a piece.
void pass_block(model::Model& model, std::int64_t block, Streams& x, Signals* signals,
                const CollectOptions& options, const std::function<void()>& tell) {
  const auto stages =
      signals ? model::stages_of(model.architecture(), block) : std::vector<model::Stage>{};
  std::vector<std::vector<Moment>> moments;
  std::map<model::MatrixId, Moment*> first_readers;  // the others read the same input
  for (const model::Stage& stage : stages) moments.emplace_back(stage.size());
  for (std::size_t s = 0; s < stages.size(); ++s) {
    for (std::size_t i = 0; i < stages[s].size(); ++i)
      first_readers[stages[s][i].front()] = &moments[s][i];
  }
  model::for_each_in_order(x.pieces.size(), model.device(), [&](std::size_t i) {
    std::vector<std::pair<Moment*, MomentPart>> parts;
    const model::Tap tap = [&](const model::MatrixId& id, const torch::Tensor& input,
                               const torch::Tensor&) {
      if (const auto it = first_readers.find(id); it != first_readers.end())
        parts.emplace_back(it->second, MomentPart(input));
    };
    const torch::Tensor y =
        x.kept(model.block(block, x.on_device(i, model), signals ? &tap : nullptr));
    return [&, i, parts, y] {
      for (const auto& [moment, part] : parts) moment->add(part);
      x.pieces[i] = y;
      tell();
    };
  });
  for (std::size_t s = 0; s < stages.size(); ++s)
    keep_inputs(stages[s], moments[s], model, options, *signals);
  model.weights().release(model::block_prefix(block));
  trim_memory();
}

}  // namespace

Signals collect(model::Model& model, const Windows& windows, const CollectOptions& options,
                const Progress& progress) {
  require_windows(windows);
  torch::NoGradGuard no_grad;
  const model::Architecture& architecture = model.architecture();
  const std::int64_t n_blocks = architecture.n_blocks(), n_kept = n_blocks + 2;
  Streams x = Streams::embed(model, windows, batch_windows(options.batch, windows, model),
                             options.group, options.spill, options.output_moments ? n_kept : 1);
  Signals signals;
  signals.n_tokens = static_cast<std::int64_t>(windows.size() * windows[0].size());
  const auto drafts =
      options.only_head ? std::vector<std::int64_t>{} : draft_blocks(architecture, windows);
  const std::uint64_t n_passes = static_cast<std::uint64_t>(n_blocks) + drafts.size(),
                      n_backward = static_cast<std::uint64_t>(n_blocks) + 1,
                      n_steps =
                          x.pieces.size() * (n_passes + (options.output_moments ? n_backward : 0));
  std::uint64_t done = 0;
  const auto tell = [&](std::int64_t block) {
    report(progress, {"collect", block < 0 ? "head" : model::block_prefix(block), ++done, n_steps,
                      "batches"});
  };
  const auto run = [&](std::int64_t block, Streams& streams) {
    pass_block(model, block, streams, options.only_head ? nullptr : &signals, options,
               [&] { tell(block); });
  };
  std::vector<Streams> inputs;  // of every block, then what the last put out
  for (std::int64_t block = 0; block < n_blocks; ++block) {
    if (options.output_moments) inputs.push_back(x);
    run(block, x);
  }
  Moment head;
  model::for_each_in_order(x.pieces.size(), model.device(), [&](std::size_t i) {
    const MomentPart part(model.final_norm(x.on_device(i, model)));
    return [&head, part] { head.add(part); };
  });
  head.sum_over(options.group, model.device());
  signals.matrices[architecture.head_name()].h = head.mean();
  for (const std::int64_t block : drafts) {
    Streams draft = x.draft(model, block);
    run(block, draft);
  }
  if (options.output_moments) {
    inputs.push_back(std::move(x));
    add_output_moments(model, std::move(inputs), signals.n_tokens, options, signals, tell);
  }
  require_finite(signals, model.weights().file().path());
  return signals;
}

}  // namespace spectralquant::calibrate
