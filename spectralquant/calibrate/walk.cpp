#include "spectralquant/calibrate/walk.h"

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/pages.h"
#include "spectralquant/calibrate/streams.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::calibrate {
namespace {

torch::Tensor to_float(const torch::Tensor& x) { return x.to(torch::kFloat32); }

/// H and drift of a stage's readers while they are gathered.
struct StageSums {
  std::vector<Moment> h, drift;

  explicit StageSums(std::size_t n) : h(n), drift(n) {}

  void sum_over(const distribute::Group& group, torch::Device device) {
    for (std::size_t i = 0; i < h.size(); ++i) {
      h[i].sum_over(group, device);
      drift[i].sum_over(group, device);
    }
  }

  /// Means of the readers; the sums are given up.
  StageMoments take(std::int64_t block, const model::Stage& stage, bool output) {
    const bool experts = stage.size() > 1;
    Moment all_h, all_drift;
    for (std::size_t i = 0; experts && i < stage.size(); ++i) {
      all_h.add(h[i]);
      all_drift.add(drift[i]);
    }
    StageMoments out;
    for (std::size_t i = 0; i < stage.size(); ++i) {
      InputMoments moments{block, stage[i], {}, {}, {}, h[i].count()};
      moments.h = experts ? h[i].mean_beside(all_h) : h[i].mean();
      (output ? moments.output_drift : moments.input_drift) =
          experts ? drift[i].mean_beside(all_drift) : drift[i].mean();
      h[i] = drift[i] = Moment();
      out.push_back(std::move(moments));
    }
    return out;
  }
};

/// Of one batch.
struct StageParts {
  std::vector<MomentPart> h, drift;

  explicit StageParts(std::size_t n) : h(n), drift(n) {}
  void add_to(StageSums& sums) const {
    for (std::size_t i = 0; i < h.size(); ++i) {
      if (h[i].count) sums.h[i].add(h[i]);
      if (drift[i].count) sums.drift[i].add(drift[i]);
    }
  }
};

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
    const model::Stage stage{{model_.architecture().head_name()}};
    StageSums sums(1);
    if (!moments_wanted(stage)) return solve_(sums.take(-1, stage, false));
    for_each_piece([&](std::size_t i) {
      const torch::Tensor x = to_float(model_.final_norm(quantized_.on_device(i, model_)));
      StageParts parts(1);
      parts.h[0] = MomentPart(x);
      if (original_model_)
        parts.drift[0] = {
            to_float(original_model_->final_norm(original_.on_device(i, *original_model_))) - x, x};
      return [&sums, parts] { parts.add_to(sums); };
    });
    sums.sum_over(options_.group, model_.device());
    solve_(sums.take(-1, stage, false));
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

  bool moments_wanted(const model::Stage& stage) const {
    return !options_.wanted || options_.wanted(stage);
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
      const torch::Tensor y =
          quantized_.kept(inputs.pieces.empty()
                              ? model_.part(block, index, x)
                              : x + torch::linear(inputs.on_device(i, model_),
                                                  model_.weights().get(part.stages.back()[0][0])));
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

  /// Inputs of a stage in the original model, where the tokens go to the experts it chooses. With
  /// `behind`, the pass goes on to the end of the part, and gives what is behind it.
  std::vector<torch::Tensor> original_inputs(const model::Stage& stage, std::int64_t block,
                                             std::size_t index, const torch::Tensor& x,
                                             model::Routing& routing, torch::Tensor* behind) {
    if (!behind) return original_model_->inputs_of(stage, block, index, x, &routing);
    std::vector<torch::Tensor> inputs(stage.size());
    std::map<model::MatrixId, std::size_t> first_readers;
    for (std::size_t i = 0; i < stage.size(); ++i) first_readers[stage[i].front()] = i;
    const model::Tap tap = [&](const model::MatrixId& id, const torch::Tensor& input,
                               const torch::Tensor&) {
      if (const auto it = first_readers.find(id); it != first_readers.end())
        inputs[it->second] = input;
    };
    *behind = original_.kept(original_model_->part(block, index, x, &tap, &routing));
    return inputs;
  }

  /// Matrices whose product goes on into the part. The last of them takes the original's stream
  /// along: the pass that gives their inputs goes on to the end of the part.
  void inner_stage(std::int64_t block, std::size_t index, const model::Stage& stage, bool is_last) {
    StageSums sums(stage.size());
    const bool wanted = moments_wanted(stage);
    for_each_piece([&](std::size_t i) {
      StageParts parts(stage.size());
      std::vector<torch::Tensor> x_f, x_q;
      torch::Tensor behind;
      model::Routing routing;
      if (original_model_ && (wanted || is_last))
        x_f = original_inputs(stage, block, index, original_.on_device(i, *original_model_),
                              routing, is_last ? &behind : nullptr);
      if (wanted)
        x_q = model_.inputs_of(stage, block, index, quantized_.on_device(i, model_), &routing);
      for (std::size_t r = 0; r < x_q.size(); ++r) {
        if (x_q[r].size(0) == 0) continue;  // an expert that no token of the batch goes to
        const torch::Tensor x = to_float(x_q[r]);
        parts.h[r] = MomentPart(x);
        if (original_model_) parts.drift[r] = {to_float(x_f[r]) - x, x};
      }
      return [this, i, &sums, parts, behind] {
        parts.add_to(sums);
        if (behind.defined()) original_.pieces[i] = behind;
      };
    });
    if (wanted) sums.sum_over(options_.group, model_.device());
    solve_(sums.take(block, stage, false));
  }

  /// The matrix whose product is added to the stream. Returns its inputs, [piece] of [B, T, cols].
  Streams output_stage(std::int64_t block, std::size_t index, const model::Stage& stage) {
    const model::MatrixId& matrix = stage.front().front();
    Streams inputs;
    inputs.pieces.resize(quantized_.pieces.size());
    const auto n_cols =
        static_cast<std::int64_t>(model_.weights().file().require(matrix.tensor).n_cols());
    inputs.choose_place(n_cols * quantized_.n_tokens() * static_cast<std::int64_t>(sizeof(float)),
                        model_.device(), options_.spill);
    StageSums sums(1);
    const bool wanted = moments_wanted(stage);
    for_each_piece([&](std::size_t i) {
      const torch::Tensor stream = quantized_.on_device(i, model_),
                          x_q = model_.inputs_of(stage, block, index, stream)[0];
      StageParts parts(1);
      if (wanted) parts.h[0] = MomentPart(x_q);
      if (wanted && original_model_) {
        const torch::Tensor y_q =
            stream + torch::linear(x_q, original_model_->weights().get(matrix));
        parts.drift[0] = {to_float(original_.on_device(i, *original_model_) - y_q), x_q};
      }
      const torch::Tensor kept = inputs.kept(x_q);
      return [&, i, kept, parts] {
        parts.add_to(sums);
        inputs.pieces[i] = kept;
      };
    });
    if (wanted) sums.sum_over(options_.group, model_.device());
    solve_(sums.take(block, stage, true));
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
