#include "spectralquant/tune/distill.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/model/decode.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/tune/checkpoint.h"
#include "spectralquant/tune/fast_products.h"
#include "spectralquant/tune/kl.h"
#include "spectralquant/tune/replay.h"
#include "spectralquant/tune/schedule.h"

namespace spectralquant::tune {
namespace {

/// Tokens of one backward pass on a CPU: matrices of this height keep its BLAS busy.
constexpr std::int64_t kPassTokensOnCpu = 2048;

/// What autograd keeps of a token and block, in hidden-size vectors (an estimate, counted from the
/// operators of a Qwen3.5 block).
constexpr std::int64_t kKeptVectors = 48;

/// Tokens for H, by hidden size: it has to be known in all directions, at every stage again.
constexpr std::int64_t kMomentTokens = 2048, kMomentTokensOnCpu = 256;

/// Tokens for the output moments of a tied embedding, by hidden size.
constexpr std::int64_t kOutputMomentTokens = 64;

/// A weight's rate, in shares of its matrix's root mean square: the best of nano (hidden size 256)
/// was 4e-3, that of a model of hidden size 512 3e-3; twice and half as much cost 4 %.
constexpr double kRate = 4e-3, kRateHidden = 256;

/// Super-scales move all columns of a super-block together.
constexpr double kSuperScaleShare = 0.1;

/// Share of G's mean diagonal added to it, where rows of the head are weighed.
constexpr double kOutputDamping = 0.01;

/// Steps between two looks at the loss: each waits for the device.
constexpr std::int64_t kStepsBetweenLooks = 8;

/// Sums over the windows of a step.
struct Sums {
  torch::Tensor nats;                    ///< float64
  std::vector<torch::Tensor> gradients;  ///< at the student's leaves, float32
};

torch::Dtype compute_type(torch::Device device) {
  return device.is_cpu() ? torch::kFloat32 : torch::kBFloat16;
}

/// At most n of the windows, spread evenly.
Windows some_of(const Windows& windows, std::size_t n) {
  if (windows.size() <= n) return windows;
  Windows some;
  for (std::size_t i = 0; i < n; ++i) some.push_back(windows[i * windows.size() / n]);
  return some;
}

/// Files first; own samples fill up.
Windows windows_for_moments(const Text& text, std::int64_t tokens) {
  const auto n = static_cast<std::size_t>(
      std::max<std::int64_t>(1, tokens / static_cast<std::int64_t>(text.held_aside.at(0).size())));
  Windows out = some_of(text.files, n);
  for (const Window& window : some_of(text.own, n - out.size())) out.push_back(window);
  return out;
}

class Distillation {
 public:
  Distillation(const gguf::File& original, const gguf::File& solved, const Text& text,
               const DistillOptions& options, torch::Device device)
      : solved_(solved),
        text_(text),
        options_(options),
        window_tokens_(static_cast<std::int64_t>(text.held_aside.at(0).size())),
        n_windows_(step_windows(options, window_tokens_)),
        teacher_(original, {device, compute_type(device)}),
        student_model_(original, {device, compute_type(device)}),
        exact_teacher_(original, {device, torch::kFloat32}),
        exact_student_(original, {device, torch::kFloat32}),
        start_(options.start.value_or(
            start_of(options.tokens, static_cast<std::int64_t>(original.n_values())))),
        student_(original, solved, start_, device),
        gradients_([this](const torch::Tensor& tokens) { return gradients_of(tokens); }) {
    const std::int64_t n_windows = run_windows(options, window_tokens_);
    report_.n_steps = n_windows / n_windows_;
    report_.batch_tokens = n_windows_ * window_tokens_;
    stages_ = make_stages(start_, report_.n_steps);
    report_.n_stages = static_cast<std::int64_t>(stages_.size());
    const double hidden = static_cast<double>(teacher_.architecture().hidden_size());
    rate_ = options.rate > 0 ? options.rate : kRate * std::sqrt(kRateHidden / hidden);
    const auto& ids = student_.ids();
    head_ = std::find(ids.begin(), ids.end(), teacher_.architecture().head_name()) - ids.begin();
    load_text(n_windows);
  }

  TensorBytes run(const std::string& checkpoint, const std::string& key, const Progress& progress) {
    checkpoint_ = checkpoint;
    key_ = key;
    const torch::Device device = teacher_.device();
    if (!load_shared_checkpoint(options_.group, checkpoint, key, report_, student_, device))
      measure_solved();
    student_.put_into(student_model_);
    student_.put_into(exact_student_);
    saved_step_ = report_.steps_done;
    last_saved_ = std::chrono::steady_clock::now();
    for (; report_.stages_done < report_.n_stages; ++report_.stages_done) {
      if (report_.stage_steps_done == 0) begin_stage(progress);
      train_stage(progress);
      report_.stages.back().held_after = mean_kl(exact_student_, text_.held_aside);
      report_.stage_steps_done = 0;
      if (report_.stages_done + 1 < report_.n_stages) {
        ++report_.stages_done;
        save();
        --report_.stages_done;
      }
    }
    TensorBytes packed = student_.pack();
    put_packed(packed, solved_, exact_student_);
    report_.held_end = mean_kl(exact_student_, text_.held_aside);
    if (!report_.gained()) packed.clear();
    return packed;
  }

  const DistillReport& report() const { return report_; }

 private:
  const Stage& stage() const { return stages_[static_cast<std::size_t>(report_.stages_done)]; }
  bool in_last_stage() const { return report_.stages_done + 1 == report_.n_stages; }

  /// All windows on the device, and the order in which they are trained on.
  void load_text(std::int64_t n_windows) {
    const Mixture mixture = mix(n_windows, static_cast<std::int64_t>(text_.files.size()),
                                options_.own_share, options_.max_file_epochs);
    const auto order = order_windows(text_, mixture, options_.seed);
    order_ = torch::tensor(order).to(teacher_.device());
    Windows all = text_.files;
    all.insert(all.end(), text_.own.begin(), text_.own.end());
    pool_ =
        model::to_tensor(all, 0, all.size(), torch::kCPU).to(torch::kInt32).to(teacher_.device());
  }

  void measure_solved() {
    for (const gguf::Tensor& tensor : solved_.tensors()) {
      if (gguf::traits(tensor.type).decodable)
        exact_student_.weights().set(tensor.name, model::decode(tensor).to(teacher_.device()));
    }
    report_.held_start = mean_kl(exact_student_, text_.held_aside);
  }

  void tell(const Progress& progress) {
    const auto total = static_cast<std::uint64_t>(report_.n_steps * report_.batch_tokens);
    const std::string item = fmt::format(
        "stage {} of {}, KL {:.4f}, held aside {:.4f} (solved {:.4f})", report_.stages_done + 1,
        report_.n_stages, recent_, report_.stages.back().held_before, report_.held_start);
    try {
      spectralquant::report(
          progress, {"tune", item, static_cast<std::uint64_t>(report_.n_tokens), total, "tokens"});
    } catch (...) {  // the caller stops the run: what was done is kept
      save();
      throw;
    }
  }

  void save() {
    if (checkpoint_.empty()) return;
    if (saved_step_ == report_.steps_done && report_.stage_steps_done > 0) return;
    save_checkpoint(checkpoint_, key_, report_, student_);
    saved_step_ = report_.steps_done;
    last_saved_ = std::chrono::steady_clock::now();
  }

  /// Fixes the next share of every matrix, under moments of the student as it is.
  void begin_stage(const Progress& progress) {
    if (report_.stages.size() <= static_cast<std::size_t>(report_.stages_done)) {
      gradients_.forget();  // moments need its memory
      fix_share();
      share_student(options_.group, student_, teacher_.device());
      student_.begin_stage();
      const double held = mean_kl(exact_student_, text_.held_aside);
      report_.stages.push_back({stage().fixed(), held, held});
      recent_ = held;
    }
    tell(progress);
  }

  void fix_share() {
    const model::Architecture& architecture = teacher_.architecture();
    quantize::FixOptions fix;
    if (in_last_stage()) fix.headroom = 1;
    collect_output_moments();
    calibrate::CollectOptions collect;
    collect.group = options_.group;
    calibrate::Signals signals;
    {
      const FastFloatProducts fast;
      signals = calibrate::collect(exact_student_, moment_windows(), collect);
    }
    for (std::int64_t block = 0; block < architecture.n_blocks(); ++block) {
      for (const model::Stage& readers_of : model::stages_of(architecture, block)) {
        for (const model::Readers& readers : readers_of)
          student_.set_free(readers, stage(), {signals.matrices[readers.front()].h, {}, {}}, fix);
      }
    }
    const std::string &head = architecture.head_name(), &embedding = architecture.embedding_name();
    const torch::Tensor h = signals.matrices[head].h;
    if (architecture.tied()) {
      student_.set_free({head}, stage(), {h, row_weight_, c_}, fix);
    } else {
      student_.set_free({head}, stage(), {h, {}, {}}, fix);
      student_.set_free({embedding}, stage(), {c_, {}, {}},
                        fix);  // a row's frequency changes nothing
    }
  }

  Windows moment_windows() const {
    const std::int64_t hidden = teacher_.architecture().hidden_size();
    return windows_for_moments(
        text_, options_.moment_tokens > 0
                   ? options_.moment_tokens
                   : hidden * (teacher_.device().is_cpu() ? kMomentTokensOnCpu : kMomentTokens));
  }

  /// What errors of the embedding cost where it is looked up, in units of what they cost at the
  /// head; of the original, once a run.
  void collect_output_moments() {
    if (c_.defined()) return;
    const std::string embedding = teacher_.architecture().embedding_name();
    calibrate::CollectOptions collect;
    collect.output_moments = true;
    collect.seed = options_.seed;
    collect.group = options_.group;
    const std::int64_t tokens =
        std::max<std::int64_t>(16384, kOutputMomentTokens * teacher_.architecture().hidden_size());
    const FastFloatProducts fast;
    const calibrate::Signals signals =
        calibrate::collect(exact_teacher_, windows_for_moments(text_, tokens), collect);
    exact_teacher_.weights().release("");
    const calibrate::MatrixSignal& signal = signals.matrices.at(embedding);
    c_ = signal.c;
    if (!teacher_.architecture().tied()) return;
    torch::Tensor g = signal.g.dim() == 2 ? signal.g.diagonal().clone() : signal.g.clone();
    g.add_(kOutputDamping * g.mean());
    row_weight_ =
        calibrate::smoothed_frequency(signal.frequency, signals.n_tokens).to(torch::kFloat32) / g;
  }

  void train_stage(const Progress& progress) {
    torch::Tensor nats;
    std::int64_t looked = report_.stage_steps_done;
    while (report_.stage_steps_done < stage().n_steps) {
      const torch::Tensor step_nats = train_step();
      nats = nats.defined() ? nats + step_nats : step_nats;
      ++report_.steps_done;
      ++report_.stage_steps_done;
      report_.n_tokens += report_.batch_tokens;
      if (report_.stage_steps_done % kStepsBetweenLooks == 0 ||
          report_.stage_steps_done == stage().n_steps) {
        recent_ = nats.item<double>() /
                  static_cast<double>((report_.stage_steps_done - looked) * report_.batch_tokens);
        looked = report_.stage_steps_done;
        nats = torch::Tensor();
      }
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - last_saved_).count() >
          options_.checkpoint_seconds)
        save();
      tell(progress);
    }
  }

  /// Returns the loss, summed over the tokens of the step.
  torch::Tensor train_step() {
    const FastFloatProducts fast;
    Sums sums = sums_of(report_.steps_done);
    const double n = static_cast<double>(report_.batch_tokens);
    for (torch::Tensor& gradient : sums.gradients) {
      if (gradient.defined()) gradient.div_(n);
    }
    const double rate = rate_ * rate_at(report_.stage_steps_done, stage().n_steps, in_last_stage());
    student_.update(sums.gradients, {in_last_stage() ? 0 : rate, kSuperScaleShare * rate, rate},
                    report_.steps_done, report_.stage_steps_done);
    return sums.nats;
  }

  /// Loss and gradients over a step's windows, those of the other processes included.
  Sums sums_of(std::int64_t step) {
    const auto [first, last] = options_.group.share(static_cast<std::size_t>(n_windows_));
    Sums sums;
    sums.nats = torch::zeros({}, torch::dtype(torch::kFloat64).device(teacher_.device()));
    sums.gradients.resize(student_.leaves().size());
    const std::int64_t begin = step * n_windows_;
    const torch::Tensor windows = order_.slice(0, begin + static_cast<std::int64_t>(first),
                                               begin + static_cast<std::int64_t>(last));
    for_each_pass(static_cast<std::int64_t>(last - first), [&](std::int64_t from, std::int64_t to) {
      const torch::Tensor tokens =
          pool_.index_select(0, windows.slice(0, from, to)).to(torch::kInt64);
      const std::vector<torch::Tensor> part = gradients_(tokens);
      return [&sums, part] {
        torch::NoGradGuard no_grad;
        sums.nats.add_(part.back());
        add_up(sums.gradients, {part.begin(), part.end() - 1});
      };
    });
    sum_over_processes(sums);
    return sums;
  }

  void sum_over_processes(Sums& sums) const {
    const distribute::Group& group = options_.group;
    if (group.alone()) return;
    torch::NoGradGuard no_grad;
    group.sum(sums.nats);
    // Which gradients there are at all: a process without windows has none of them.
    const auto n = static_cast<std::int64_t>(sums.gradients.size());
    torch::Tensor known = torch::zeros({n}, torch::kInt32);
    for (std::int64_t i = 0; i < n; ++i)
      known[i] = sums.gradients[static_cast<std::size_t>(i)].defined() ? 1 : 0;
    group.sum(known);
    for (std::int64_t i = 0; i < n; ++i) {
      if (known[i].item<std::int32_t>() == 0) continue;
      torch::Tensor& gradient = sums.gradients[static_cast<std::size_t>(i)];
      if (!gradient.defined())
        gradient = torch::zeros_like(student_.leaves()[static_cast<std::size_t>(i)]);
      group.sum(gradient);
    }
  }

  double mean_kl(model::Model& student, const Windows& windows) {
    torch::NoGradGuard no_grad;
    torch::Tensor sum = torch::zeros({1}, torch::kFloat64);
    const auto [first, last] = options_.group.share(windows.size());
    for_each_pass(static_cast<std::int64_t>(last - first), [&, first = first](std::int64_t from,
                                                                              std::int64_t to) {
      const torch::Tensor tokens =
          model::to_tensor(windows, first + static_cast<std::size_t>(from),
                           static_cast<std::size_t>(to - from), teacher_.device());
      const torch::Tensor part =
          compare(exact_teacher_, student, tokens, hidden(student, tokens), false).nats;
      return [&sum, part] { sum.add_(part.to(torch::kCPU)); };
    });
    options_.group.sum(sum);
    exact_teacher_.weights().release("");
    return sum.item<double>() /
           static_cast<double>(static_cast<std::int64_t>(windows.size()) * window_tokens_);
  }

  /// work(first, last) for windows first … last − 1 → what is to be done with its result, in the
  /// order of the windows.
  template <typename Work>
  void for_each_pass(std::int64_t n, const Work& work) {
    if (n == 0) return;
    const std::int64_t n_passes = passes_of(n);
    model::for_each_in_order(static_cast<std::size_t>(n_passes), teacher_.device(),
                             [&](std::size_t i) -> std::function<void()> {
                               const auto pass = static_cast<std::int64_t>(i);
                               return work(pass * n / n_passes, (pass + 1) * n / n_passes);
                             });
  }

  /// Passes for n windows: of equal size where few more make them so, as a recording serves one
  /// size.
  std::int64_t passes_of(std::int64_t n) const {
    const std::int64_t most = std::min(n, pass_windows(n)), least = (n + most - 1) / most;
    for (std::int64_t passes = least; passes <= std::min(n, 2 * least); ++passes) {
      if (n % passes == 0) return passes;
    }
    return least;
  }

  /// Most windows of one pass through the model.
  std::int64_t pass_windows(std::int64_t n_windows) const {
    std::int64_t tokens = kPassTokensOnCpu;
    if (teacher_.device().is_cpu()) {  // passes run side by side, one a thread
      const std::int64_t n_threads = at::get_num_threads();
      tokens = std::min(tokens, (n_windows + n_threads - 1) / n_threads * window_tokens_);
    } else {
      const auto bytes = static_cast<std::int64_t>(c10::elementSize(teacher_.dtype()));
      tokens = kMostPassBytes / (kKeptVectors * bytes * teacher_.architecture().n_blocks() *
                                 teacher_.architecture().hidden_size());
    }
    return std::max<std::int64_t>(1, tokens / window_tokens_);
  }

  static torch::Tensor hidden(model::Model& model, const torch::Tensor& tokens) {
    torch::Tensor x = model.embed(tokens);
    for (std::int64_t i = 0; i < model.architecture().n_blocks(); ++i) x = model.block(i, x);
    return model.final_norm(x).flatten(0, 1);
  }

  static HeadKl compare(model::Model& teacher, model::Model& student, const torch::Tensor& tokens,
                        const torch::Tensor& student_hidden, bool gradients) {
    torch::NoGradGuard no_grad;
    const std::string& head = teacher.architecture().head_name();
    return kl_at_head(hidden(teacher, tokens), teacher.weights().get(head), student_hidden,
                      student.weights().get(head), gradients);
  }

  /// Gradients at the student's leaves, and last the loss summed over the tokens.
  std::vector<torch::Tensor> gradients_of(const torch::Tensor& tokens) {
    const torch::Tensor x = hidden(student_model_, tokens);
    const HeadKl head = compare(teacher_, student_model_, tokens, x, true);
    std::vector<torch::Tensor> out = torch::autograd::grad(
        {x}, student_.leaves(), {head.hidden_gradient.to(x.scalar_type())}, /*retain_graph=*/false,
        /*create_graph=*/false, /*allow_unused=*/true);
    if (head_ < out.size()) {  // a tied head also has the embedding's
      torch::Tensor& gradient = out[head_];
      gradient = gradient.defined() ? gradient.add_(head.weight_gradient) : head.weight_gradient;
    }
    out.push_back(head.nats);
    return out;
  }

  const gguf::File& solved_;
  const Text& text_;
  const DistillOptions& options_;
  std::int64_t window_tokens_, n_windows_;  ///< n_windows_: of a step
  std::vector<Stage> stages_;
  double rate_ = 0;
  /// what trains, and the same weights computed in float32, to measure and to gather moments
  model::Model teacher_, student_model_, exact_teacher_, exact_student_;
  Start start_;
  Student student_;
  Replay gradients_;
  std::size_t head_ = 0;  ///< of the student's leaves; their number if the head is not among them
  torch::Tensor pool_, order_;    ///< all windows [n, T] int32; indices of those trained on
  torch::Tensor row_weight_, c_;  ///< of the embedding
  DistillReport report_;
  double recent_ = 0;  ///< mean KL of the last steps
  std::string checkpoint_, key_;
  std::int64_t saved_step_ = 0;
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
  hasher.update(fmt::format("{} {} {} {} {} {} {} {} {} {} {}", options.tokens,
                            options.batch_tokens, options.rate, options.own_share,
                            options.max_file_epochs, options.max_own_epochs, options.moment_tokens,
                            options.seed, device.str(), at::get_num_threads(),
                            options.start ? static_cast<int>(*options.start) : -1));
  return hasher.hex();
}

}  // namespace

std::int64_t step_windows(const DistillOptions& options, std::int64_t window_tokens) {
  const std::int64_t wanted =
      options.batch_tokens > 0 ? options.batch_tokens : default_batch_tokens(options.tokens);
  return std::max<std::int64_t>(1, std::min(wanted, options.tokens) / window_tokens);
}

std::int64_t run_windows(const DistillOptions& options, std::int64_t window_tokens) {
  const std::int64_t per_step = step_windows(options, window_tokens),
                     tokens = per_step * window_tokens;
  return std::max<std::int64_t>(1, (options.tokens + tokens - 1) / tokens) * per_step;
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
  Distillation distillation(original, solved, text, options, device);
  TensorBytes tuned = distillation.run(checkpoint, run_key(key, text, options, device), progress);
  report = distillation.report();
  return tuned;
}

}  // namespace spectralquant::tune
