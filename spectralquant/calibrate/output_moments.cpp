#include "spectralquant/calibrate/output_moments.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/autograd.h>

#include <algorithm>
#include <map>
#include <string>

#include "spectralquant/calibrate/moments.h"
#include "spectralquant/calibrate/pages.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::calibrate {
namespace {

/// Signs that one word holds.
constexpr std::int64_t kWordBits = 32;

/// ±1 with equal probability, as bits of words [n, ⌈size / 32⌉]. Drawn on the CPU, so that a seed
/// means the same on every device, and 32 of them from one number: drawn one by one those of a
/// large vocabulary take longer than everything else.
torch::Tensor draw_words(std::int64_t n, std::int64_t size, torch::Generator generator,
                         torch::Device device) {
  constexpr std::int64_t kHalf = std::int64_t{1} << 31;
  return torch::randint(-kHalf, kHalf, {n, (size + kWordBits - 1) / kWordBits}, generator,
                        torch::kInt32)
      .to(device);
}

/// The signs of columns [first, first + size), first a multiple of 32: [n, size] float32.
torch::Tensor signs_of(const torch::Tensor& words, std::int64_t first, std::int64_t size) {
  const torch::Tensor bytes =
      words.slice(1, first / kWordBits, (first + size + kWordBits - 1) / kWordBits)
          .contiguous()
          .view(torch::kUInt8)
          .unsqueeze(-1);
  const torch::Tensor bits =
      bytes.bitwise_right_shift(torch::arange(8, bytes.options())).bitwise_and_(1);
  return bits.flatten(1).slice(1, 0, size).to(torch::kFloat32).mul_(2).sub_(1);
}

/// The rows of a model's head, in slices.
class HeadSlices {
 public:
  HeadSlices(model::Model& model, std::int64_t values)
      : weights_(model.weights().get(model.architecture().head_name())) {
    const std::int64_t rows = values / weights_.size(1);
    step_ = std::max(kWordBits, rows / kWordBits * kWordBits);
  }

  std::int64_t vocab() const { return weights_.size(0); }
  torch::Tensor weights(std::int64_t first, std::int64_t n) const {
    return weights_.narrow(0, first, n);
  }
  /// body(first, n) of every slice.
  template <typename Body>
  void for_each(const Body& body) const {
    for (std::int64_t first = 0; first < vocab(); first += step_)
      body(first, std::min(step_, vocab() - first));
  }

 private:
  torch::Tensor weights_;
  std::int64_t step_;
};

/// zᵀ W of some tokens. hidden: [n, D].
torch::Tensor sketch_of_tokens(const HeadSlices& head, const torch::Tensor& hidden,
                               const torch::Tensor& words, torch::Tensor& diagonal) {
  torch::Tensor p =
      torch::empty({hidden.size(0), head.vocab()}, hidden.options().dtype(torch::kFloat32));
  head.for_each([&](std::int64_t first, std::int64_t n) {
    p.narrow(1, first, n).copy_(hidden.mm(head.weights(first, n).t()));
  });
  p.sub_(std::get<0>(p.max(-1, /*keepdim=*/true))).exp_();
  p.div_(p.sum(-1, /*keepdim=*/true));
  // p becomes √p∘e, whose square it still is
  torch::Tensor along = torch::zeros({hidden.size(0), 1}, p.options());
  head.for_each([&](std::int64_t first, std::int64_t n) {
    torch::Tensor columns = p.narrow(1, first, n);
    diagonal.narrow(0, first, n).add_((columns - columns.square()).sum(0));
    columns.sqrt_().mul_(signs_of(words, first, n));
    along.add_(columns.sum(-1, /*keepdim=*/true));
  });
  torch::Tensor gradient = torch::zeros(hidden.sizes(), p.options());
  head.for_each([&](std::int64_t first, std::int64_t n) {
    const torch::Tensor columns = p.narrow(1, first, n), w = head.weights(first, n);
    gradient.add_((columns - columns.square() * along).to(w.scalar_type()).mm(w));
  });
  return gradient;
}

/// Behind the last block: the gradient at its output, batch by batch; the head's diagonal of G.
Streams behind_blocks(model::Model& model, const Streams& last, const CollectOptions& options,
                      torch::Tensor& diagonal, const std::function<void()>& tell) {
  Streams gradient = last;
  model::for_each_in_order(last.pieces.size(), model.device(), [&](std::size_t i) {
    const torch::Tensor x = last.on_device(i, model).detach().requires_grad_(true),
                        hidden = model.final_norm(x);
    torch::Tensor part = torch::zeros_like(diagonal);
    const torch::Tensor at_hidden =
        sketch_gradient(model, hidden, sketch_generator(options.seed, last.first_batch + i), part);
    const torch::Tensor kept = gradient.kept(torch::autograd::grad({hidden}, {x}, {at_hidden})[0]);
    return [&, i, part, kept] {
      diagonal.add_(part);
      gradient.pieces[i] = kept;
      tell();
    };
  });
  return gradient;
}

/// Moves the gradient in front of a block and gathers G of its matrices.
std::map<model::MatrixId, Moment> through_block(model::Model& model, std::int64_t block,
                                                const Streams& inputs, Streams& gradient,
                                                const std::function<void()>& tell) {
  std::map<model::MatrixId, Moment> moments;
  for (const model::Stage& stage : model::stages_of(model.architecture(), block))
    for (const model::Readers& readers : stage)
      for (const model::MatrixId& id : readers) moments[id];
  model::for_each_in_order(inputs.pieces.size(), model.device(), [&](std::size_t i) {
    std::map<model::MatrixId, MomentPart> parts;
    const model::Tap tap = [&](const model::MatrixId& id, const torch::Tensor&,
                               const torch::Tensor& output) {
      output.register_hook([&parts, id](const torch::Tensor& g) { parts[id] = MomentPart(g); });
    };
    const torch::Tensor x = inputs.on_device(i, model).detach().requires_grad_(true),
                        y = model.block(block, x, &tap);
    const torch::Tensor kept =
        gradient.kept(torch::autograd::grad({y}, {x}, {gradient.on_device(i, model)})[0]);
    return [&, i, parts, kept] {
      for (const auto& [id, part] : parts) moments.at(id).add(part);
      gradient.pieces[i] = kept;
      tell();
    };
  });
  return moments;
}

/// Puts G of a stage's matrices into the signals, and gives the sums up.
void keep_outputs(const model::Stage& stage, std::map<model::MatrixId, Moment>& moments,
                  model::Model& model, const CollectOptions& options, Signals& signals) {
  const bool experts = stage.size() > 1;
  for (std::size_t r = 0; r < stage.front().size(); ++r) {
    Moment all;
    for (const model::Readers& readers : stage) {
      Moment& moment = moments.at(readers[r]);
      moment.sum_over(options.group, model.device());
      if (experts) all.add(moment);
    }
    for (const model::Readers& readers : stage) {
      Moment& moment = moments.at(readers[r]);
      MatrixSignal& signal = signals.matrices[readers[r]];
      signal.g = options.spill.put(experts ? moment.mean_beside(all) : moment.mean());
      if (experts) signal.n_tokens = moment.count();
      moment = Moment();
    }
  }
}

}  // namespace

torch::Generator sketch_generator(std::uint64_t seed, std::size_t index) {
  // A generator a batch: what is drawn does not depend on which batch runs first.
  return at::detail::createCPUGenerator(seed * 1000003 + index);
}

torch::Tensor sketch_gradient(model::Model& model, const torch::Tensor& hidden,
                              torch::Generator generator, torch::Tensor& diagonal,
                              const SketchSlices& slices) {
  torch::NoGradGuard no_grad;
  const HeadSlices head(model, slices.head_values);
  const torch::Tensor flat = hidden.detach().reshape({-1, hidden.size(-1)});
  const std::int64_t slice = std::max<std::int64_t>(1, slices.distribution_values / head.vocab());
  torch::Tensor gradient = torch::empty_like(flat);
  for (std::int64_t first = 0; first < flat.size(0); first += slice) {
    const torch::Tensor tokens = flat.slice(0, first, first + slice);
    const torch::Tensor words = draw_words(tokens.size(0), head.vocab(), generator, flat.device());
    gradient.slice(0, first, first + slice).copy_(sketch_of_tokens(head, tokens, words, diagonal));
  }
  return gradient.view(hidden.sizes());
}

void add_output_moments(model::Model& model, std::vector<Streams> inputs, std::int64_t n_tokens,
                        const CollectOptions& options, Signals& signals,
                        const std::function<void(std::int64_t block)>& tell) {
  const torch::AutoGradMode with_gradients(true);
  const model::Architecture& architecture = model.architecture();
  const distribute::Group& group = options.group;
  const std::int64_t vocab = architecture.vocab_size();
  torch::Tensor diagonal =
      torch::zeros({vocab}, torch::TensorOptions(model.device()).dtype(torch::kFloat64));
  Streams gradient = behind_blocks(model, inputs.back(), options, diagonal, [&] { tell(-1); });
  model.weights().release(architecture.head_name());
  trim_memory();
  group.sum(diagonal);
  signals.matrices[architecture.head_name()].g =
      (diagonal / static_cast<double>(n_tokens)).to(torch::kCPU, torch::kFloat32);

  inputs.pop_back();
  for (std::int64_t block = architecture.n_blocks() - 1; block >= 0; --block) {
    auto moments = through_block(model, block, inputs.back(), gradient, [&] { tell(block); });
    inputs.pop_back();
    model.weights().release(model::block_prefix(block));
    for (const model::Stage& stage : model::stages_of(architecture, block))
      keep_outputs(stage, moments, model, options, signals);
    trim_memory();
  }

  MatrixSignal& embedding = signals.matrices[architecture.embedding_name()];
  Moment at_embedding;
  torch::Tensor frequency = torch::zeros({vocab}, torch::kFloat64);
  for (std::size_t i = 0; i < gradient.pieces.size(); ++i) {
    at_embedding.add(gradient.on_device(i, model));
    const torch::Tensor flat = gradient.tokens[i].flatten();
    frequency.index_add_(0, flat, torch::ones({flat.size(0)}, torch::kFloat64));
  }
  at_embedding.sum_over(group, model.device());
  group.sum(frequency);
  embedding.c = at_embedding.mean();
  embedding.frequency = (frequency / static_cast<double>(n_tokens)).to(torch::kFloat32);
}

}  // namespace spectralquant::calibrate
