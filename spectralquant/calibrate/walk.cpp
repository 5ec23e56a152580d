#include "spectralquant/calibrate/walk.h"

#include <optional>

#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/pages.h"
#include "spectralquant/calibrate/streams.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::calibrate {
namespace {

torch::Tensor to_float(const torch::Tensor& x) { return x.to(torch::kFloat32); }

class Walk {
 public:
  Walk(model::Model& model, const Windows& windows, const WalkOptions& options,
       const std::function<void(const StageMoments&)>& solve)
      : model_(model),
        options_(options),
        solve_(solve),
        batch_(batch_windows(options.batch, windows, model)),
        quantized_(Streams::embed(model, windows, batch_, options.group, options.spill, 2)) {
    // where nothing was set() in its place, it was decoded whole
    model.weights().release(model.architecture().embedding_name());
    if (!options.drift) return;
    original_model_.emplace(model.weights().file(),
                            model::ModelOptions{model.device(), model.dtype()});
    original_ = Streams::embed(*original_model_, windows, batch_, options.group, options.spill, 2);
    original_model_->weights().release(model.architecture().embedding_name());
  }

  void block(std::int64_t block) {
    const auto parts = model_.architecture().parts(block);
    for (std::size_t i = 0; i < parts.size(); ++i) part(block, i, parts[i]);
    model_.weights().release(model::block_prefix(block));
    if (original_model_) original_model_->weights().release(model::block_prefix(block));
    trim_memory();
  }

  void head() {
    const model::Stage names{model_.architecture().head_name()};
    Moment h, drift;
    if (!moments_wanted(names)) return solve_({-1, names, {}, {}, {}, 0});
    for_each_piece([&](std::size_t i) {
      const torch::Tensor x = to_float(model_.final_norm(quantized_.on_device(i, model_)));
      MomentPart h_part(x), drift_part;
      if (original_model_)
        drift_part = {
            to_float(original_model_->final_norm(original_.on_device(i, *original_model_))) - x, x};
      return [&h, &drift, h_part, drift_part] {
        h.add(h_part);
        if (drift_part.count) drift.add(drift_part);
      };
    });
    sum_over_processes(h, drift);
    solve_({-1, names, h.mean(), drift.mean(), {}, h.count()});
  }

  /// Leaves the streams behind the last block for those of a draft block, and walks that.
  void draft(std::int64_t index) {
    const Streams behind = std::move(quantized_), original_behind = std::move(original_);
    quantized_ = behind.draft(model_, index);
    if (original_model_) original_ = original_behind.draft(*original_model_, index);
    block(index);
    quantized_ = behind;
    original_ = original_behind;
    if (original_model_) original_model_->weights().release(model_.architecture().embedding_name());
  }

 private:
  template <typename Work>
  void for_each_piece(const Work& work) {
    model::for_each_in_order(quantized_.pieces.size(), model_.device(), work);
  }

  void sum_over_processes(Moment& h, Moment& drift) const {
    h.sum_over(options_.group, model_.device());
    drift.sum_over(options_.group, model_.device());
  }

  bool moments_wanted(const model::Stage& names) const {
    return !options_.wanted || options_.wanted(names);
  }

  void part(std::int64_t block, std::size_t index, const model::Part& part) {
    const std::size_t n_inner = part.stages.size() - (part.adds_last_product ? 1 : 0);
    for (std::size_t s = 0; s < n_inner; ++s)
      inner_stage(block, index, part.stages[s], /*is_last=*/s + 1 == n_inner);
    if (n_inner == 0) move_original(block, index);
    Streams inputs;
    if (part.adds_last_product) inputs = output_stage(block, index, part.stages.back());
    for_each_piece([&](std::size_t i) {
      const torch::Tensor x = quantized_.on_device(i, model_);
      const torch::Tensor y = quantized_.kept(
          inputs.pieces.empty() ? model_.part(block, index, x)
                                : x + torch::linear(inputs.on_device(i, model_),
                                                    model_.weights().get(part.stages.back()[0])));
      return [this, i, y] { quantized_.pieces[i] = y; };
    });
  }

  /// Moves the original's stream behind this part.
  void move_original(std::int64_t block, std::size_t index) {
    if (!original_model_) return;
    for_each_piece([&](std::size_t i) {
      const torch::Tensor y = original_.kept(
          original_model_->part(block, index, original_.on_device(i, *original_model_)));
      return [this, i, y] { original_.pieces[i] = y; };
    });
  }

  /// Matrices whose product goes on into the part. The last of them takes the original's stream
  /// along: the pass that gives their inputs goes on to the end of the part.
  void inner_stage(std::int64_t block, std::size_t index, const model::Stage& names, bool is_last) {
    Moment h, drift;
    const bool wanted = moments_wanted(names);
    for_each_piece([&](std::size_t i) {
      MomentPart h_part, drift_part;
      torch::Tensor x_q, behind;
      if (wanted) {
        x_q =
            to_float(model_.input_of(names.front(), block, index, quantized_.on_device(i, model_)));
        h_part = MomentPart(x_q);
      }
      if (original_model_ && is_last) {
        const model::Tap tap = [&](std::string_view name, const torch::Tensor& x_f,
                                   const torch::Tensor&) {
          if (wanted && name == names.front()) drift_part = {to_float(x_f) - x_q, x_q};
        };
        behind = original_.kept(
            original_model_->part(block, index, original_.on_device(i, *original_model_), &tap));
      } else if (original_model_ && wanted) {
        const torch::Tensor x_f = original_model_->input_of(
            names.front(), block, index, original_.on_device(i, *original_model_));
        drift_part = {to_float(x_f) - x_q, x_q};
      }
      return [this, i, &h, &drift, h_part, drift_part, behind] {
        if (h_part.count) h.add(h_part);
        if (drift_part.count) drift.add(drift_part);
        if (behind.defined()) original_.pieces[i] = behind;
      };
    });
    if (wanted) sum_over_processes(h, drift);
    solve_({block, names, h.mean(), drift.mean(), {}, h.count()});
  }

  /// The matrix whose product is added to the stream. Returns its inputs, [piece] of [B, T, cols].
  Streams output_stage(std::int64_t block, std::size_t index, const model::Stage& names) {
    const std::string& name = names.front();
    Streams inputs;
    inputs.pieces.resize(quantized_.pieces.size());
    const auto n_cols = static_cast<std::int64_t>(model_.weights().file().require(name).n_cols());
    inputs.choose_place(n_cols * quantized_.n_tokens() * static_cast<std::int64_t>(sizeof(float)),
                        model_.device(), options_.spill);
    Moment h, drift;
    const bool wanted = moments_wanted(names);
    for_each_piece([&](std::size_t i) {
      const torch::Tensor stream = quantized_.on_device(i, model_),
                          x_q = model_.input_of(name, block, index, stream);
      MomentPart h_part, drift_part;
      if (wanted) h_part = MomentPart(x_q);
      if (wanted && original_model_) {
        const torch::Tensor y_q = stream + torch::linear(x_q, original_model_->weights().get(name));
        drift_part = {to_float(original_.on_device(i, *original_model_) - y_q), x_q};
      }
      const torch::Tensor kept = inputs.kept(x_q);
      return [&, i, kept, h_part, drift_part] {
        if (h_part.count) h.add(h_part);
        if (drift_part.count) drift.add(drift_part);
        inputs.pieces[i] = kept;
      };
    });
    if (wanted) sum_over_processes(h, drift);
    solve_({block, names, h.mean(), {}, drift.mean(), h.count()});
    return inputs;
  }

  model::Model& model_;
  const WalkOptions& options_;
  const std::function<void(const StageMoments&)>& solve_;
  std::int64_t batch_;
  /// residual streams; behind the present part of the original, in front of it in the quantized
  /// model
  Streams quantized_, original_;
  std::optional<model::Model> original_model_;
};

}  // namespace

void walk(model::Model& model, const Windows& windows, const WalkOptions& options,
          const std::function<void(const StageMoments&)>& solve, const Progress& progress) {
  require_windows(windows);
  torch::NoGradGuard no_grad;
  const auto n_blocks = model.architecture().n_blocks();
  const auto drafts = draft_blocks(model.architecture(), windows);
  Walk walk(model, windows, options, solve);
  const auto tell = [&](std::int64_t block) {
    report(progress, {"walk", model::block_prefix(block), static_cast<std::uint64_t>(block),
                      static_cast<std::uint64_t>(n_blocks) + drafts.size(), "blocks"});
  };
  for (std::int64_t block = 0; block < n_blocks; ++block) {
    tell(block);
    walk.block(block);
  }
  if (!model.architecture().tied()) walk.head();
  for (const std::int64_t block : drafts) {
    tell(block);
    walk.draft(block);
  }
}

}  // namespace spectralquant::calibrate
