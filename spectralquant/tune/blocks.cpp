#include "spectralquant/tune/blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/core/error.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/tune/fast_products.h"
#include "spectralquant/tune/kl.h"

namespace spectralquant::tune {
namespace {

/// Residual streams of all windows between two blocks: [window] of [T, D] float32 in main memory.
using Streams = std::vector<torch::Tensor>;

class BlockDistillation {
 public:
  BlockDistillation(const gguf::File& original, const gguf::File& solved, const Text& text,
                    const DistillOptions& options, torch::Device device)
      : original_(original),
        solved_(solved),
        options_(options),
        device_(device),
        original_model_(original, {device, options.bfloat16 ? torch::kBFloat16 : torch::kFloat32}),
        tuned_model_(original, {device, original_model_.dtype()}) {
    for (const Windows* windows : {&text.held_aside, &text.files, &text.own})
      windows_.insert(windows_.end(), windows->begin(), windows->end());
    n_held_ = text.held_aside.size();
    n_measured_ = std::min(windows_.size(), 2 * n_held_);  // and as many of the text trained on
    const auto n_tokens = static_cast<std::int64_t>(windows_[0].size());
    step_windows_ = step_windows(options, n_tokens, device);
    n_steps_ = run_windows(options, n_tokens, device) / step_windows_;
    // The curriculum deals out window numbers instead of windows: each window of this text is one
    // number.
    for (std::size_t i = n_held_; i < windows_.size(); ++i) {
      (i < n_held_ + text.files.size() ? numbers_.files : numbers_.own)
          .push_back({static_cast<std::int32_t>(i)});
    }
  }

  TensorBytes run(DistillReport& report, const Progress& progress) {
    const std::int64_t n_blocks = original_model_.architecture().n_blocks();
    report.n_steps = n_blocks;
    report.batch_tokens = step_windows_ * static_cast<std::int64_t>(windows_[0].size());
    embed();
    TensorBytes all;
    for (std::int64_t block = 0; block < n_blocks; ++block) {
      Best best = tune_block(block, [&](std::int64_t step, double loss) {
        const auto done =
                       static_cast<std::uint64_t>((block * n_steps_ + step) * report.batch_tokens),
                   total = static_cast<std::uint64_t>(n_blocks * n_steps_ * report.batch_tokens);
        spectralquant::report(
            progress, {"tune", fmt::format("{} error {:.5f}", model::block_prefix(block), loss),
                       done, total, "tokens"});
      });
      advance(block, best.packed);
      all.merge(best.packed);
      report.curve.emplace_back(block + 1, best.loss);
      ++report.steps_done;
      report.n_tokens += n_steps_ * report.batch_tokens;
    }
    report.held_start = mean_kl(solved_stream_, 0, n_held_);
    report.held_end = mean_kl(tuned_, 0, n_held_);
    report.calibration_start = mean_kl(solved_stream_, n_held_, n_measured_);
    report.calibration_end = mean_kl(tuned_, n_held_, n_measured_);
    if (report.held_end < report.held_start) {
      report.best_step = n_blocks;
      return all;
    }
    report.held_end = report.held_start;
    report.calibration_end = report.calibration_start;
    return {};
  }

 private:
  struct Best {
    TensorBytes packed;
    double loss = 0;
  };

  torch::Tensor on_device(const Streams& streams, std::size_t window) const {
    return streams[window].to(device_, original_model_.dtype()).unsqueeze(0);
  }
  static torch::Tensor to_memory(const torch::Tensor& x) {
    return x.squeeze(0).to(torch::kCPU, torch::kFloat32);
  }

  void set_solved(const std::string& name) {
    tuned_model_.weights().set(name, decode(solved_.require(name)).to(device_));
  }

  void embed() {
    torch::NoGradGuard no_grad;
    const std::string name = original_model_.architecture().embedding_name();
    set_solved(name);
    for (std::size_t i = 0; i < windows_.size(); ++i) {
      const torch::Tensor tokens = model::to_tensor(windows_, i, 1, device_);
      original_stream_.push_back(to_memory(original_model_.embed(tokens)));
      tuned_.push_back(to_memory(tuned_model_.embed(tokens)));
    }
    solved_stream_.assign(tuned_.begin(),
                          tuned_.begin() + static_cast<std::ptrdiff_t>(n_measured_));
    tuned_model_.weights().reset(name);
    original_model_.weights().release(name);
  }

  /// Loss of window i with the tuned model's present weights, and what the original gives there.
  torch::Tensor loss(std::int64_t block, std::size_t i) {
    torch::Tensor aim;
    {
      torch::NoGradGuard no_grad;
      aim = original_model_.block(block, on_device(original_stream_, i)).to(torch::kFloat32);
    }
    const torch::Tensor error =
        tuned_model_.block(block, on_device(tuned_, i)).to(torch::kFloat32) - aim;
    return (error.square().sum(-1) / aim.square().sum(-1)).mean();
  }

  double held_loss(std::int64_t block) {
    torch::NoGradGuard no_grad;
    double sum = 0;
    model::for_each_in_order(n_held_, device_, [&](std::size_t i) -> std::function<void()> {
      const double part = loss(block, i).item<double>();
      return [&sum, part] { sum += part; };
    });
    return sum / static_cast<double>(n_held_);
  }

  template <typename Tell>
  Best tune_block(std::int64_t block, const Tell& tell) {
    Student student(original_, solved_, options_.clip, device_, model::block_prefix(block));
    const Curriculum curriculum(
        numbers_,
        mix(n_steps_ * step_windows_, static_cast<std::int64_t>(numbers_.files.size()),
            options_.own_share, options_.max_epochs),
        options_.seed + static_cast<std::uint64_t>(block));
    student.put_into(tuned_model_);
    Best best{student.pack(), held_loss(block)};
    double recent = best.loss;
    int without = 0;
    const std::int64_t interval = std::max<std::int64_t>(1, n_steps_ / options_.measurements);
    for (std::int64_t step = 0; step < n_steps_ && without < options_.patience; ++step) {
      tell(step, recent);
      std::vector<torch::Tensor> gradients(student.leaves().size());
      model::for_each_in_order(static_cast<std::size_t>(step_windows_), device_,
                               [&](std::size_t index) -> std::function<void()> {
                                 const auto i = static_cast<std::size_t>(curriculum.window(
                                     step, static_cast<std::int64_t>(index), step_windows_)[0]);
                                 auto part = torch::autograd::grad(
                                     {loss(block, i)}, student.leaves(), {}, /*retain_graph=*/false,
                                     /*create_graph=*/false, /*allow_unused=*/true);
                                 return [&gradients, part] { add_up(gradients, part); };
                               });
      const std::int64_t tokens = step_windows_ * static_cast<std::int64_t>(windows_[0].size());
      student.update(std::move(gradients), rates_at(options_, tokens, step, n_steps_), step,
                     options_.adam);
      student.put_into(tuned_model_);
      if ((step + 1) % interval != 0 && step + 1 != n_steps_) continue;
      recent = held_loss(block);
      ++without;
      if (!(recent < best.loss)) continue;
      best = {student.pack(), recent};
      without = 0;
    }
    tell(n_steps_, recent);
    return best;
  }

  /// Moves all streams behind the block.
  void advance(std::int64_t block, const TensorBytes& packed) {
    torch::NoGradGuard no_grad;
    const auto move = [&](model::Model& model, Streams& streams) {
      model::for_each_in_order(
          streams.size(), device_, [&](std::size_t i) -> std::function<void()> {
            const torch::Tensor x = to_memory(model.block(block, on_device(streams, i)));
            return [&streams, i, x] { streams[i] = x; };
          });
    };
    put_packed(packed, solved_, tuned_model_);
    move(tuned_model_, tuned_);
    for (const auto& [name, bytes] : packed) set_solved(name);
    move(tuned_model_, solved_stream_);
    move(original_model_, original_stream_);
    for (const auto& [name, bytes] : packed) tuned_model_.weights().reset(name);
    for (model::Model* model : {&original_model_, &tuned_model_})
      model->weights().release(model::block_prefix(block));
  }

  /// Of windows first to last, from their streams behind the last block.
  double mean_kl(const Streams& streams, std::size_t first, std::size_t last) {
    torch::NoGradGuard no_grad;
    const std::string head = original_model_.architecture().head_name();
    for (const gguf::Tensor& tensor : solved_.tensors()) {
      const bool of_a_block = model::block_of(tensor.name) >= 0,
                 looked_up = tensor.name == original_model_.architecture().embedding_name() &&
                             tensor.name != head;
      if (!of_a_block && !looked_up) set_solved(tensor.name);
    }
    double sum = 0;
    for (std::size_t i = first; i < last; ++i) {
      const torch::Tensor p = original_model_.final_norm(on_device(original_stream_, i)).squeeze(0),
                          q = tuned_model_.final_norm(on_device(streams, i)).squeeze(0);
      sum += kl_at_head(p, original_model_.weights().get(head), q, tuned_model_.weights().get(head),
                        false)
                 .sum_nats;
    }
    return last == first ? 0 : sum / static_cast<double>((last - first) * windows_[0].size());
  }

  const gguf::File &original_, &solved_;
  const DistillOptions& options_;
  torch::Device device_;
  model::Model original_model_, tuned_model_;
  Windows windows_;  ///< held aside, files, own
  Text numbers_;
  std::size_t n_held_ = 0, n_measured_ = 0;
  std::int64_t n_steps_ = 1, step_windows_ = 1;  ///< of a block
  /// solved_stream_: nothing tuned, the first n_measured_ windows
  Streams original_stream_, tuned_, solved_stream_;
};

}  // namespace

TensorBytes distill_blocks(const gguf::File& original, const gguf::File& solved, const Text& text,
                           const DistillOptions& options, torch::Device device,
                           DistillReport& report, const Progress& progress) {
  require_held_aside(text);
  const FastFloatProducts fast;
  return BlockDistillation(original, solved, text, options, device).run(report, progress);
}

}  // namespace spectralquant::tune
