#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/streams.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::calibrate {
namespace {

/// Values of logits held at once; the head is worked through in slices of tokens so that a large
/// vocabulary fits.
constexpr std::int64_t kSliceValues = std::int64_t{1} << 26;

/// Tokens whose p pᵀ enters the head's G: a [V, V] product per token is the most expensive step
/// here, and its mean settles early.
constexpr std::int64_t kHeadTokens = 8192;

/// Blocks × hidden size × tokens of a batch on an accelerator: what a backward pass keeps is some
/// hundred bytes for each.
constexpr std::int64_t kBackwardValues = std::int64_t{100} << 20;

/// Rows of the head's G that are summed at once.
constexpr std::int64_t kStrip = 512;

/// E[diag(p) − p pᵀ] of the output distribution; of a large vocabulary its diagonal.
class HeadMoment {
 public:
  HeadMoment(std::int64_t vocab, std::int64_t n_tokens, torch::Device device)
      : stride_(std::max<std::int64_t>(1, (n_tokens + kHeadTokens - 1) / kHeadTokens)),
        diagonal_(torch::zeros({vocab}, torch::dtype(torch::kFloat64).device(device))),
        product_diagonal_(diagonal_.clone()) {
    // float32: the sum is taken in place, a float64 copy of [V, V] would be the largest thing in
    // memory.
    if (vocab <= kLargestHeadMoment)
      products_ = torch::zeros({vocab, vocab}, torch::dtype(torch::kFloat32).device(device));
  }

  /// Of one batch: Σ p (Σ p − p² if only the diagonal is wanted), and the p whose products are
  /// taken.
  struct Part {
    torch::Tensor sum, some;
    std::int64_t n_tokens = 0;
  };

  /// p: [n, V] probabilities of tokens first, first + 1, … of the text.
  Part part(const torch::Tensor& p, std::int64_t first) const {
    if (!products_.defined()) return {(p - p.square()).sum(0), {}, p.size(0)};
    return {p.sum(0), p.slice(0, (stride_ - first % stride_) % stride_, p.size(0), stride_).clone(),
            p.size(0)};
  }

  void add(const Part& part) {
    diagonal_.add_(part.sum);
    n_tokens_ += part.n_tokens;
    if (!part.some.defined()) return;
    const torch::Tensor columns = part.some.t();
    // the upper triangle; mean() mirrors it
    for (std::int64_t first = 0, vocab = columns.size(0); first < vocab; first += kStrip) {
      const std::int64_t last = std::min(first + kStrip, vocab);
      products_.slice(0, first, last)
          .slice(1, first)
          .addmm_(columns.slice(0, first, last), part.some.slice(1, first));
    }
    product_diagonal_.add_(part.some.sum(0));
    n_products_ += part.some.size(0);
  }

  void sum_over(const distribute::Group& group) {
    if (group.alone()) return;
    torch::Tensor counts = torch::tensor({n_tokens_, n_products_});
    group.sum(counts);
    n_tokens_ = counts[0].item<std::int64_t>();
    n_products_ = counts[1].item<std::int64_t>();
    group.sum(diagonal_);
    group.sum(product_diagonal_);
    if (products_.defined()) group.sum(products_);
  }

  torch::Tensor mean() const {
    if (!products_.defined())
      return (diagonal_ / static_cast<double>(n_tokens_)).to(torch::kCPU, torch::kFloat32);
    torch::Tensor g =
        products_.triu().add_(products_.triu(1).t()).mul_(-1 / static_cast<double>(n_products_));
    const torch::Tensor of_products =
        (product_diagonal_ / static_cast<double>(n_products_)).to(torch::kFloat32);
    // p − p² of one set of tokens: negative by rounding only
    g.diagonal().add_(of_products).clamp_min_(0);
    // The diagonal of all tokens is known better; scaling both sides keeps G positive.
    const torch::Tensor scale = ((diagonal_ / static_cast<double>(n_tokens_)).to(torch::kFloat32) /
                                 of_products.clamp_min(1e-30))
                                    .sqrt();
    g.mul_(scale.unsqueeze(0)).mul_(scale.unsqueeze(1));
    return g.to(torch::kCPU);
  }

 private:
  std::int64_t stride_, n_tokens_ = 0, n_products_ = 0;
  torch::Tensor diagonal_, product_diagonal_, products_;
};

/// ±1 with equal probability, [n, size] float32. Drawn on the CPU, so that a seed means the same on
/// every device, and 32 of them from one number: drawn one by one those of a large vocabulary take
/// longer than everything else.
torch::Tensor draw_signs(std::int64_t n, std::int64_t size, torch::Generator generator,
                         torch::Device device) {
  constexpr std::int64_t kHalf = std::int64_t{1} << 31;
  const torch::Tensor words =
      torch::randint(-kHalf, kHalf, {n, (size + 31) / 32}, generator, torch::kInt32);
  const torch::Tensor bytes = words.view(torch::kUInt8).to(device).unsqueeze(-1);
  const torch::Tensor bits =
      bytes.bitwise_right_shift(torch::arange(8, bytes.options())).bitwise_and_(1);
  return bits.flatten(1).slice(1, 0, size).to(torch::kFloat32).mul_(2).sub_(1);
}

/// Gradient at the final hidden states of one draw of the Fisher sketch.
///
/// hidden: [B, T, D] → [B, T, D].
torch::Tensor sketch_gradient(model::Model& model, const torch::Tensor& hidden,
                              torch::Generator generator, const HeadMoment& head,
                              std::int64_t first_token, std::vector<HeadMoment::Part>& parts) {
  const torch::Tensor flat = hidden.detach().reshape({-1, hidden.size(-1)});
  const std::int64_t vocab = model.architecture().vocab_size(),
                     slice = std::max<std::int64_t>(1, kSliceValues / vocab);
  torch::Tensor gradient = torch::empty_like(flat);
  for (std::int64_t first = 0; first < flat.size(0); first += slice) {
    const std::int64_t last = std::min(first + slice, flat.size(0));
    const torch::Tensor leaf = flat.slice(0, first, last).clone().requires_grad_(true);
    const torch::Tensor logits = model.head(leaf.unsqueeze(0)).squeeze(0);
    torch::Tensor z;
    {
      torch::NoGradGuard no_grad;
      const torch::Tensor p = logits.to(torch::kFloat32).softmax(-1);
      z = draw_signs(p.size(0), vocab, generator, p.device()).mul_(p.sqrt());
      z.sub_(p * z.sum(-1, /*keepdim=*/true));
      parts.push_back(head.part(p, first_token + first));
    }
    const torch::Tensor slice_gradient =
        torch::autograd::grad({logits}, {leaf}, {z.to(logits.scalar_type())})[0];
    gradient.slice(0, first, last).copy_(slice_gradient);
  }
  return gradient.view(hidden.sizes());
}

/// What one batch adds to the moments.
struct Batch {
  std::vector<MomentPart> inputs;                          ///< by stage
  std::map<std::string, MomentPart, std::less<>> outputs;  ///< by matrix
  std::vector<HeadMoment::Part> head_output;
  MomentPart head_input, embedding_output;
};

}  // namespace

Signals collect_output_moments(model::Model& model, const Windows& windows,
                               const CollectOptions& options, const Progress& progress) {
  const model::Architecture& architecture = model.architecture();
  // every matrix to the moment of its input
  std::map<std::string, std::size_t, std::less<>> stage_of;
  std::map<std::string, bool, std::less<>> leads;
  std::size_t n_stages = 0;
  const auto drafts = draft_blocks(architecture, windows);
  const auto add_stages = [&](std::int64_t block) {
    for (const model::Part& part : architecture.parts(block)) {
      for (const model::Stage& stage : part.stages) {
        for (const std::string& name : stage) {
          stage_of[name] = n_stages;
          leads[name] = name == stage.front();
        }
        ++n_stages;
      }
    }
  };
  for (std::int64_t block = 0; block < architecture.n_blocks(); ++block) add_stages(block);
  for (const std::int64_t block : drafts) add_stages(block);
  std::vector<Moment> inputs(n_stages);
  std::map<std::string, Moment, std::less<>> outputs;
  for (const auto& [name, stage] : stage_of) outputs[name];
  const std::int64_t n_tokens = static_cast<std::int64_t>(windows.size() * windows[0].size());
  std::int64_t batch = batch_windows(options.batch, windows, model);
  if (options.batch <= 0 && !model.device().is_cpu()) {
    const std::int64_t of_window = architecture.n_blocks() * architecture.hidden_size() *
                                   static_cast<std::int64_t>(windows[0].size());
    batch = std::clamp<std::int64_t>(kBackwardValues / of_window, 1, batch);
  }
  const std::size_t n_windows = static_cast<std::size_t>(batch);
  const auto [own_begin, own_end] = options.group.share(n_batches(windows, batch));
  HeadMoment head_output(architecture.vocab_size(), n_tokens, model.device());
  Moment head_input, embedding_output;
  torch::Tensor frequency = torch::zeros({architecture.vocab_size()}, torch::kFloat64);
  model::for_each_in_order(
      own_end - own_begin, model.device(), [&, own_begin = own_begin](std::size_t own) {
        // counted over all processes: what is drawn and which p are taken do not depend on them
        const std::size_t i = own_begin + own;
        const std::size_t first = i * n_windows,
                          count = std::min(windows.size() - first, n_windows);
        Batch part;
        part.inputs.resize(n_stages);
        const model::Tap tap = [&](std::string_view name, const torch::Tensor& input,
                                   const torch::Tensor& output) {
          const auto it = stage_of.find(name);
          if (it == stage_of.end()) return;
          if (leads.find(name)->second) part.inputs[it->second] = MomentPart(input);
          if (!output.requires_grad()) return;
          output.register_hook([&part, key = it->first](const torch::Tensor& gradient) {
            part.outputs[key] = MomentPart(gradient);
          });
        };
        const torch::Tensor tokens = model::to_tensor(windows, first, count, model.device());
        const torch::Tensor embedded = model.embed(tokens).detach().requires_grad_(true);
        torch::Tensor x = embedded;
        for (std::int64_t block = 0; block < architecture.n_blocks(); ++block)
          x = model.block(block, x, &tap);
        const torch::Tensor hidden = model.final_norm(x);
        part.head_input = MomentPart(hidden);
        // A generator a batch: what is drawn does not depend on which batch runs first.
        const torch::Generator generator =
            at::detail::createCPUGenerator(options.seed * 1000003 + i);
        const std::int64_t first_token = static_cast<std::int64_t>(first * windows[0].size());
        const torch::Tensor gradient =
            sketch_gradient(model, hidden, generator, head_output, first_token, part.head_output);
        part.embedding_output =
            MomentPart(torch::autograd::grad({hidden}, {embedded}, {gradient})[0]);
        for (const std::int64_t block : drafts) {
          torch::NoGradGuard no_grad;
          model.block(block, model.draft_input(block, tokens, hidden.detach()), &tap);
        }
        const torch::Tensor flat = tokens.flatten().to(torch::kCPU);
        return [&, part, flat, done = first + count] {
          for (std::size_t s = 0; s < n_stages; ++s) inputs[s].add(part.inputs[s]);
          for (const auto& [name, moment] : part.outputs) outputs.find(name)->second.add(moment);
          for (const auto& head : part.head_output) head_output.add(head);
          head_input.add(part.head_input);
          embedding_output.add(part.embedding_output);
          frequency.index_add_(0, flat, torch::ones({flat.size(0)}, torch::kFloat64));
          report(progress, {"collect", "gradients", done, windows.size(), "windows"});
        };
      });

  const distribute::Group& group = options.group;
  for (Moment& moment : inputs) moment.sum_over(group, model.device());
  for (auto& [name, moment] : outputs) moment.sum_over(group, model.device());
  head_output.sum_over(group);
  head_input.sum_over(group, model.device());
  embedding_output.sum_over(group, model.device());
  group.sum(frequency);

  Signals signals;
  signals.n_tokens = n_tokens;
  std::vector<torch::Tensor> h(n_stages);
  for (std::size_t s = 0; s < n_stages; ++s) h[s] = inputs[s].mean();
  for (const auto& [name, stage] : stage_of) {
    MatrixSignal& signal = signals.matrices[name];
    signal.h = h[stage];
    signal.g = outputs.find(name)->second.mean();
  }
  MatrixSignal& head = signals.matrices[architecture.head_name()];
  head.h = head_input.mean();
  head.g = head_output.mean();
  MatrixSignal& embedding = signals.matrices[architecture.embedding_name()];
  embedding.c = embedding_output.mean();
  embedding.frequency = (frequency / static_cast<double>(n_tokens)).to(torch::kFloat32);
  return signals;
}

}  // namespace spectralquant::calibrate
