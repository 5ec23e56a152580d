#include <optional>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/streams.h"

namespace spectralquant::calibrate {
namespace {

/// What a stage's matrices see for one batch of windows.
struct StageInput {
  torch::Tensor input;         ///< [B, T, cols]
  torch::Tensor first_output;  ///< [B, T, D], of the block's first output projection; undefined before it has run
};

/// Thrown out of a block's forward pass when all that is wanted of it has been seen.
struct Seen {};

/// Runs a block up to the input of stage `stage`.
StageInput run_to_stage(model::Model& model, std::int64_t block, const std::vector<std::vector<std::string>>& stages, std::size_t stage,
                        const torch::Tensor& x) {
  StageInput seen;
  const model::Tap tap = [&](std::string_view name, const torch::Tensor& input, const torch::Tensor& output) {
    if (stage > 1 && name == stages[1].front()) seen.first_output = output;
    if (name != stages[stage].front()) return;
    seen.input = input;
    throw Seen{};
  };
  try {
    model.block(block, x, &tap);
  } catch (const Seen&) {
  }
  TORCH_CHECK(seen.input.defined(), "block ", block, " never reads ", stages[stage].front());
  return seen;
}

/// The original model beside the quantized one: its stage inputs, kept for a whole block or computed when asked.
class OriginalStream {
 public:
  OriginalStream(model::Model& quantized, const Windows& windows, std::int64_t batch, std::uint64_t keep_bytes)
      : model_(quantized.weights().file(), {quantized.device(), quantized.dtype()}), x_(Streams::embed(model_, windows, batch)), keep_bytes_(keep_bytes) {
    model_.weights().release(model_.architecture().embedding_name());
  }

  /// Runs the block on all windows; the streams move behind it with leave_block().
  void enter_block(std::int64_t block, const std::vector<std::vector<std::string>>& stages) {
    block_ = block;
    stages_ = &stages;
    kept_.clear();
    std::uint64_t bytes = 0;
    for (const auto& stage : stages) bytes += static_cast<std::uint64_t>(model_.weights().file().require(stage.front()).n_cols());
    if (bytes * static_cast<std::uint64_t>(x_.n_tokens()) * sizeof(float) > keep_bytes_) return;
    kept_.resize(x_.pieces.size());
    next_.pieces.resize(x_.pieces.size());
    for (std::size_t i = 0; i < x_.pieces.size(); ++i) {
      kept_[i].resize(stages.size());
      torch::Tensor first_output;
      const model::Tap tap = [&](std::string_view name, const torch::Tensor& input, const torch::Tensor& output) {
        for (std::size_t s = 0; s < stages.size(); ++s) {
          if (name == stages[s].front()) kept_[i][s] = {input.to(torch::kCPU, torch::kFloat32), first_output};
        }
        if (stages.size() > 1 && name == stages[1].front()) first_output = output.to(torch::kCPU, torch::kFloat32);
      };
      next_.put(i, model_.block(block, x_.on_device(i, model_), &tap));
    }
  }

  StageInput stage(std::size_t stage, std::size_t piece) {
    if (!kept_.empty()) return kept_[piece][stage];
    return run_to_stage(model_, block_, *stages_, stage, x_.on_device(piece, model_));
  }

  void leave_block() {
    if (!kept_.empty()) {
      x_.pieces.swap(next_.pieces);
    } else {
      for (std::size_t i = 0; i < x_.pieces.size(); ++i) x_.put(i, model_.block(block_, x_.on_device(i, model_)));
    }
    kept_.clear();
    model_.weights().release(block_prefix(block_));
  }

  torch::Tensor head_input(std::size_t piece) { return model_.final_norm(x_.on_device(piece, model_)); }

  const Streams& x() const { return x_; }  ///< at the input of the current block

 private:
  model::Model model_;
  Streams x_;
  std::uint64_t keep_bytes_;
  std::int64_t block_ = 0;
  const std::vector<std::vector<std::string>>* stages_ = nullptr;
  std::vector<std::vector<StageInput>> kept_;  ///< [piece][stage]; empty: not kept
  Streams next_;
};

torch::Tensor to_float(const torch::Tensor& x, torch::Device device) { return x.to(device, torch::kFloat32); }

}  // namespace

void walk(model::Model& model, const Windows& windows, const WalkOptions& options, const std::function<void(const StageMoments&)>& solve,
          const Progress& progress) {
  require_windows(windows);
  torch::NoGradGuard no_grad;
  const model::Architecture& architecture = model.architecture();
  const std::int64_t batch = batch_windows(options.batch, windows, model);
  const torch::Device device = model.device();
  Streams x = Streams::embed(model, windows, batch);
  std::optional<OriginalStream> original;
  if (options.drift) original.emplace(model, windows, batch, options.keep_bytes);
  const std::size_t n_pieces = x.pieces.size();

  for (std::int64_t block = 0; block < architecture.n_blocks(); ++block) {
    const auto stages = architecture.stages(block);
    if (original) original->enter_block(block, stages);
    for (std::size_t s = 0; s < stages.size(); ++s) {
      report(progress, {"walk", stages[s].front(), static_cast<std::uint64_t>(block), static_cast<std::uint64_t>(architecture.n_blocks()), "blocks"});
      Moment h, input_drift, residual_drift;
      for (std::size_t i = 0; i < n_pieces; ++i) {
        const StageInput q = run_to_stage(model, block, stages, s, x.on_device(i, model));
        h.add(q.input);
        if (!original) continue;
        const StageInput f = original->stage(s, i);
        const torch::Tensor x_q = to_float(q.input, device);
        input_drift.add(to_float(f.input, device) - x_q, x_q);
        if (s % 2 == 0) continue;
        torch::Tensor r = to_float(original->x().pieces[i] - x.pieces[i], device);
        if (s > 1) r = r + (to_float(f.first_output, device) - to_float(q.first_output, device));
        residual_drift.add(r, x_q);
      }
      StageMoments moments{block, stages[s], h.mean(), input_drift.mean(), residual_drift.mean(), h.count()};
      solve(moments);
    }
    for (std::size_t i = 0; i < n_pieces; ++i) x.put(i, model.block(block, x.on_device(i, model)));
    model.weights().release(block_prefix(block));
    if (original) original->leave_block();
  }

  Moment h, input_drift;
  for (std::size_t i = 0; i < n_pieces; ++i) {
    const torch::Tensor x_q = to_float(model.final_norm(x.on_device(i, model)), device);
    h.add(x_q);
    if (original) input_drift.add(to_float(original->head_input(i), device) - x_q, x_q);
  }
  solve({-1, {architecture.head_name()}, h.mean(), input_drift.mean(), {}, h.count()});
}

}  // namespace spectralquant::calibrate
