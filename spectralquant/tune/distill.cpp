#include "spectralquant/tune/distill.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/tune/checkpoint.h"
#include "spectralquant/tune/fast_products.h"
#include "spectralquant/tune/kl.h"

namespace spectralquant::tune {
namespace {

constexpr std::int64_t kBatchOnCpu = 4096, kBatchOnDevice = 65536;

/// Tokens of one backward pass on a CPU: matrices of this height keep its BLAS busy.
constexpr std::int64_t kPassTokensOnCpu = 2048;

/// What autograd keeps of a token and block, in hidden-size vectors (an estimate, counted from the
/// operators of a Qwen3.5 block), and what it may keep in all.
constexpr std::int64_t kKeptVectors = 48, kKeptBytes = std::int64_t{16} << 30;

/// Steps over which rates rise: Adam's running means need some before they mean anything.
constexpr std::int64_t kWarmUpSteps = 50;

/// Sums over the windows of a step.
struct Sums {
  double nats = 0;
  std::vector<torch::Tensor> gradients;  ///< at the student's leaves
};

class Distillation {
 public:
  Distillation(const gguf::File& original, const gguf::File& solved, const Text& text,
               const DistillOptions& options, torch::Device device)
      : solved_(solved),
        text_(text),
        options_(options),
        window_tokens_(static_cast<std::int64_t>(text.held_aside.at(0).size())),
        n_windows_(step_windows(options, window_tokens_, device)),
        curriculum_(text,
                    mix(run_windows(options, window_tokens_, device),
                        static_cast<std::int64_t>(text.files.size()), options.own_share,
                        options.max_epochs),
                    options.seed),
        teacher_(original, {device, options.bfloat16 ? torch::kBFloat16 : torch::kFloat32}),
        student_model_(original, {device, teacher_.dtype()}),
        student_(original, solved, options.clip, device) {
    run_.report.n_steps = run_windows(options, window_tokens_, device) / n_windows_;
    run_.report.batch_tokens = n_windows_ * window_tokens_;
    const auto& names = student_.names();
    head_ =
        std::find(names.begin(), names.end(), teacher_.architecture().head_name()) - names.begin();
  }

  TensorBytes run(const std::string& checkpoint, const std::string& key, const Progress& progress) {
    DistillReport& report = run_.report;
    last_saved_ = std::chrono::steady_clock::now();
    if (load_shared_checkpoint(options_.group, checkpoint, key, run_, student_)) {
      student_.put_into(student_model_);
    } else {
      start();
    }
    std::int64_t saved = report.steps_done;
    const auto save = [&] {
      if (checkpoint.empty() || saved == report.steps_done) return;
      save_checkpoint(checkpoint, key, run_, student_, solved_);
      saved = report.steps_done;
      last_saved_ = std::chrono::steady_clock::now();
    };
    const auto tell = [&] {
      const auto total = static_cast<std::uint64_t>(report.n_steps * report.batch_tokens);
      const std::string item = fmt::format("KL {:.4f}, held aside {:.4f} (start {:.4f})", recent_,
                                           report.curve.back().second, report.held_start);
      try {
        spectralquant::report(
            progress, {"tune", item, std::min(static_cast<std::uint64_t>(report.n_tokens), total),
                       total, "tokens"});
      } catch (...) {  // the caller stops the run: what was done is kept
        save();
        throw;
      }
    };
    recent_ = report.curve.back().second;
    tell();
    const std::int64_t interval =
        std::max<std::int64_t>(1, report.n_steps / std::max(1, options_.measurements));
    while (report.steps_done < report.n_steps && !hopeless()) {
      train(report.steps_done);
      ++report.steps_done;
      report.n_tokens += report.batch_tokens;
      if (report.steps_done % interval == 0 || report.steps_done == report.n_steps)
        measure_and_keep();
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - last_saved_).count() >
          options_.checkpoint_seconds)
        save();
      tell();
    }
    finish();
    return std::move(run_.best);
  }

  const DistillReport& report() const { return run_.report; }

 private:
  void start() {
    student_.put_into(student_model_);
    run_.best = student_.pack();
    run_.report.held_start = mean_kl(text_.held_aside);
    run_.report.calibration_start = mean_kl(calibration_sample());
    run_.report.curve = {{0, run_.report.held_start}};
  }

  /// The figures at the end are those of the packed tensors.
  void finish() {
    put_packed(run_.best, solved_, student_model_);
    run_.report.held_end = mean_kl(text_.held_aside);
    run_.report.calibration_end = mean_kl(calibration_sample());
  }

  void measure_and_keep() {
    DistillReport& report = run_.report;
    const double now = mean_kl(text_.held_aside);
    report.curve.emplace_back(report.steps_done, now);
    double best = report.held_start;
    for (const auto& [step, kl] : report.curve) {
      if (step < report.steps_done) best = std::min(best, kl);
    }
    if (!(now < best)) return;
    run_.best = student_.pack();
    report.best_step = report.steps_done;
  }

  bool hopeless() const {
    const auto& curve = run_.report.curve;
    const auto since_best = std::count_if(curve.begin(), curve.end(), [&](const auto& point) {
      return point.first > run_.report.best_step;
    });
    return since_best >= options_.patience;
  }

  /// As many windows of the text trained on as are held aside, files and own samples alike.
  Windows calibration_sample() const {
    const std::size_t n_files = text_.files.size(), n = n_files + text_.own.size(),
                      wanted = std::min(n, text_.held_aside.size());
    Windows sample;
    for (std::size_t i = 0; i < wanted; ++i) {
      const std::size_t at = i * n / wanted;
      sample.push_back(at < n_files ? text_.files[at] : text_.own[at - n_files]);
    }
    return sample;
  }

  void train(std::int64_t step) {
    Sums sums = sums_of(step);
    const double n = static_cast<double>(run_.report.batch_tokens);
    for (torch::Tensor& gradient : sums.gradients) {
      if (gradient.defined()) gradient.div_(n);
    }
    recent_ += (sums.nats / n - recent_) * (step == 0 ? 1.0 : 0.1);
    const Rates rates = rates_at(options_, run_.report.batch_tokens, step, run_.report.n_steps);
    student_.update(std::move(sums.gradients), rates, step, options_.adam);
    student_.put_into(student_model_);
  }

  /// Loss and gradients of all latents over a step's windows, those of the other processes
  /// included.
  Sums sums_of(std::int64_t step) {
    Windows windows;
    const auto [first, last] = options_.group.share(static_cast<std::size_t>(n_windows_));
    for (std::size_t i = first; i < last; ++i)
      windows.push_back(curriculum_.window(step, static_cast<std::int64_t>(i), n_windows_));
    Sums sums;
    sums.gradients.resize(student_.leaves().size());
    for_each_pass(windows, [&](const torch::Tensor& tokens) {
      Sums part = gradients_of(tokens);
      return [&sums, part] {
        sums.nats += part.nats;
        add_up(sums.gradients, part.gradients);
      };
    });
    sum_over_processes(sums);
    return sums;
  }

  void sum_over_processes(Sums& sums) const {
    const distribute::Group& group = options_.group;
    if (group.alone()) return;
    torch::NoGradGuard no_grad;
    // Beside the loss: which gradients there are at all. A process without windows has none of
    // them.
    const auto n = static_cast<std::int64_t>(sums.gradients.size());
    torch::Tensor facts = torch::zeros({n + 1}, torch::kFloat64);
    facts[n] = sums.nats;
    for (std::int64_t i = 0; i < n; ++i)
      facts[i] = sums.gradients[static_cast<std::size_t>(i)].defined() ? 1.0 : 0.0;
    group.sum(facts);
    sums.nats = facts[n].item<double>();
    for (std::int64_t i = 0; i < n; ++i) {
      if (facts[i].item<double>() == 0) continue;
      torch::Tensor& gradient = sums.gradients[static_cast<std::size_t>(i)];
      gradient =
          gradient.defined()
              ? gradient.to(torch::kFloat32)
              : torch::zeros_like(student_.leaves()[static_cast<std::size_t>(i)], torch::kFloat32);
      group.sum(gradient);
    }
  }

  double mean_kl(const Windows& windows) {
    torch::NoGradGuard no_grad;
    double sum = 0;
    const auto [first, last] = options_.group.share(windows.size());
    const Windows own(windows.begin() + static_cast<std::ptrdiff_t>(first),
                      windows.begin() + static_cast<std::ptrdiff_t>(last));
    for_each_pass(own, [&](const torch::Tensor& tokens) {
      const double part = compare(tokens, hidden(student_model_, tokens), false).sum_nats;
      return [&sum, part] { sum += part; };
    });
    torch::Tensor total = torch::full({1}, sum, torch::kFloat64);
    options_.group.sum(total);
    sum = total.item<double>();
    return sum / static_cast<double>(static_cast<std::int64_t>(windows.size()) * window_tokens_);
  }

  /// work(tokens [B, T]) → what is to be done with its result, in the order of the windows.
  template <typename Work>
  void for_each_pass(const Windows& windows, const Work& work) {
    if (windows.empty()) return;
    const auto n = static_cast<std::int64_t>(windows.size()), pass = std::min(n, pass_windows(n));
    model::for_each_in_order(
        static_cast<std::size_t>((n + pass - 1) / pass), teacher_.device(),
        [&](std::size_t i) -> std::function<void()> {
          const std::int64_t first = static_cast<std::int64_t>(i) * pass;
          return work(model::to_tensor(windows, static_cast<std::size_t>(first),
                                       static_cast<std::size_t>(std::min(pass, n - first)),
                                       teacher_.device()));
        });
  }

  /// Windows of one pass through the model.
  std::int64_t pass_windows(std::int64_t n_windows) const {
    std::int64_t tokens = kPassTokensOnCpu;
    if (teacher_.device().is_cpu()) {  // passes run side by side, one a thread
      const std::int64_t n_threads = at::get_num_threads();
      tokens = std::min(tokens, (n_windows + n_threads - 1) / n_threads * window_tokens_);
    } else {
      const std::int64_t bytes = teacher_.dtype() == torch::kBFloat16 ? 2 : 4;
      tokens = kKeptBytes / (kKeptVectors * bytes * teacher_.architecture().n_blocks() *
                             teacher_.architecture().hidden_size());
    }
    return std::max<std::int64_t>(1, tokens / window_tokens_);
  }

  static torch::Tensor hidden(model::Model& model, const torch::Tensor& tokens) {
    torch::Tensor x = model.embed(tokens);
    for (std::int64_t i = 0; i < model.architecture().n_blocks(); ++i) x = model.block(i, x);
    return model.final_norm(x).flatten(0, 1);
  }

  HeadKl compare(const torch::Tensor& tokens, const torch::Tensor& student_hidden, bool gradients) {
    torch::NoGradGuard no_grad;
    const std::string& head = teacher_.architecture().head_name();
    return kl_at_head(hidden(teacher_, tokens), teacher_.weights().get(head), student_hidden,
                      student_model_.weights().get(head), gradients);
  }

  Sums gradients_of(const torch::Tensor& tokens) {
    const torch::Tensor x = hidden(student_model_, tokens);
    const HeadKl head = compare(tokens, x, true);
    Sums out;
    out.nats = head.sum_nats;
    out.gradients = torch::autograd::grad(
        {x}, student_.leaves(), {head.hidden_gradient.to(x.scalar_type())}, /*retain_graph=*/false,
        /*create_graph=*/false, /*allow_unused=*/true);
    if (head_ < out.gradients.size()) {  // a tied head also has the embedding's
      torch::Tensor& gradient = out.gradients[head_];
      gradient = gradient.defined() ? gradient.add_(head.weight_gradient) : head.weight_gradient;
    }
    return out;
  }

  const gguf::File& solved_;
  const Text& text_;
  const DistillOptions& options_;
  std::int64_t window_tokens_, n_windows_;  ///< n_windows_: of a step
  Curriculum curriculum_;
  model::Model teacher_, student_model_;
  Student student_;
  std::size_t head_ = 0;  ///< of the student's leaves; their number if the head is not among them
  double recent_ = 0;
  RunState run_;
  std::chrono::steady_clock::time_point last_saved_;
};

/// Everything that decides the result, so that a checkpoint is only taken up by the same run.
std::string run_key(const std::string& key, const Text& text, const DistillOptions& options,
                    torch::Device device) {
  Hasher hasher;
  hasher.update(key);
  for (const Windows* windows : {&text.files, &text.own, &text.held_aside}) {
    for (const Window& window : *windows)
      hasher.update(window.data(), window.size() * sizeof window[0]);
    hasher.update("|");
  }
  const Rates& rates = options.rates;
  hasher.update(fmt::format(
      "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", options.tokens,
      options.batch_tokens, options.rate, rates.codes, rates.sub_scales, rates.super_scales,
      rates.free, options.adam.beta1, options.adam.beta2, options.adam.damping, options.clip,
      options.own_share, options.max_epochs, options.bfloat16, options.measurements,
      options.patience, options.seed, options.fall, device.str(), at::get_num_threads()));
  return hasher.hex();
}

}  // namespace

std::int64_t step_windows(const DistillOptions& options, std::int64_t window_tokens,
                          torch::Device device) {
  const std::int64_t wanted = options.batch_tokens > 0 ? options.batch_tokens
                              : device.is_cpu()        ? kBatchOnCpu
                                                       : kBatchOnDevice;
  return std::max<std::int64_t>(1, std::min(wanted, options.tokens) / window_tokens);
}

std::int64_t run_windows(const DistillOptions& options, std::int64_t window_tokens,
                         torch::Device device) {
  const std::int64_t per_step = step_windows(options, window_tokens, device),
                     tokens = per_step * window_tokens;
  return std::max<std::int64_t>(1, (options.tokens + tokens - 1) / tokens) * per_step;
}

Rates rates_at(const DistillOptions& options, std::int64_t batch_tokens, std::int64_t step,
               std::int64_t n_steps) {
  const double rise =
      std::min(1.0, static_cast<double>(step + 1) /
                        static_cast<double>(std::min(kWarmUpSteps, n_steps / 10 + 1)));
  const double fall = std::pow(
      0.5 * (1 + std::cos(M_PI * static_cast<double>(step) / static_cast<double>(n_steps))),
      options.fall);
  // The noise of a gradient falls with the root of the tokens it is averaged over.
  const double size = std::sqrt(
      std::min(1.0, static_cast<double>(batch_tokens) / static_cast<double>(kRateTokens)));
  const double factor = options.rate * size * rise * fall;
  const Rates& rates = options.rates;
  return {rates.codes * factor, rates.sub_scales * factor, rates.super_scales * factor,
          rates.free * factor};
}

void require_held_aside(const Text& text) {
  if (!text.held_aside.empty()) return;
  throw Error(ErrorCode::kBadUsage, "there is no text to hold aside from tuning", {},
              "give more calibration text, or shorter windows");
}

TensorBytes distill(const gguf::File& original, const gguf::File& solved, const Text& text,
                    const DistillOptions& options, torch::Device device,
                    const std::string& checkpoint, const std::string& key, DistillReport& report,
                    const Progress& progress) {
  require_held_aside(text);
  const FastFloatProducts fast;
  Distillation distillation(original, solved, text, options, device);
  TensorBytes best = distillation.run(checkpoint, run_key(key, text, options, device), progress);
  report = distillation.report();
  return best;
}

}  // namespace spectralquant::tune
