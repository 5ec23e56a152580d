#include "spectralquant/model/experts.h"

#include <fmt/format.h>

#include <tuple>

#include "spectralquant/model/layers.h"

namespace spectralquant::model {
namespace {

/// The least that the weights of a token's experts are divided by: llama.cpp's smallest float16.
constexpr double kLeastSum = 6.103515625e-5;

/// Experts of every token, [N, n_used]: those that are imposed, or the largest probabilities.
torch::Tensor choose(const torch::Tensor& probabilities, std::int64_t n_used, Routing* routing) {
  if (routing && routing->experts.defined()) return routing->experts;
  const torch::Tensor chosen = std::get<1>(probabilities.detach().topk(n_used, -1));
  if (routing) routing->experts = chosen;
  return chosen;
}

}  // namespace

Experts::Experts(const HyperParameters& get, std::int64_t hidden, std::int64_t feed_forward)
    : n_(get.count("expert_count")),
      n_used_(get.count("expert_used_count")),
      hidden_(hidden),
      feed_forward_(feed_forward) {
  get.require(n_used_ <= n_, "expert_used_count", fmt::format("of {} experts", n_));
  get.require_supported(n_ > 1, "expert_count", "and a router needs two experts at least");
  get.require_supported(get.count_or("expert_group_count", 0) <= 1, "expert_group_count",
                        "and groups of experts are not run");
}

double expert_share(const gguf::File& file) {
  const HyperParameters get(file);
  const std::int64_t n = get.count_or("expert_count", 0);
  return n == 0 ? 1 : static_cast<double>(get.count("expert_used_count")) / static_cast<double>(n);
}

void Experts::check_block(const gguf::File& file, std::int64_t block) const {
  require_shape(file, weight_name(block, "ffn_gate_inp"), {hidden_, n_});
  require_shape(file, weight_name(block, "ffn_gate_exps"), {hidden_, feed_forward_, n_});
  require_shape(file, weight_name(block, "ffn_up_exps"), {hidden_, feed_forward_, n_});
  require_shape(file, weight_name(block, "ffn_down_exps"), {feed_forward_, hidden_, n_});
}

std::vector<MatrixId> Experts::matrices(std::int64_t block, std::string_view part) const {
  std::vector<MatrixId> ids;
  for (std::int64_t e = 0; e < n_; ++e) ids.emplace_back(weight_name(block, part), e);
  return ids;
}

std::vector<Stage> Experts::stages(std::int64_t block) const {
  const auto gate = matrices(block, "ffn_gate_exps"), up = matrices(block, "ffn_up_exps"),
             down = matrices(block, "ffn_down_exps");
  Stage inner, outer;
  for (std::size_t e = 0; e < gate.size(); ++e) {
    inner.push_back({gate[e], up[e]});
    outer.push_back({down[e]});
  }
  return {inner, outer};
}

std::vector<torch::Tensor> Experts::outputs(std::int64_t block,
                                            const std::vector<torch::Tensor>& xs,
                                            const Pass& pass) const {
  const auto gate = pass.linear_each(matrices(block, "ffn_gate_exps"), xs),
             up = pass.linear_each(matrices(block, "ffn_up_exps"), xs);
  std::vector<torch::Tensor> inner;
  for (std::size_t e = 0; e < gate.size(); ++e)
    inner.push_back(gate[e].size(0) == 0 ? gate[e] : swiglu(gate[e], up[e]));
  return pass.linear_each(matrices(block, "ffn_down_exps"), inner);
}

torch::Tensor Experts::forward(std::int64_t block, const torch::Tensor& x, const Pass& pass) const {
  const torch::Tensor flat = x.reshape({-1, hidden_}),
                      router = pass.weights.get(weight_name(block, "ffn_gate_inp")),
                      p = torch::linear(flat.to(torch::kFloat32), router.to(torch::kFloat32))
                              .softmax(-1),
                      chosen = choose(p, n_used_, pass.routing);
  torch::Tensor weights = p.gather(-1, chosen);
  weights = weights / weights.sum(-1, /*keepdim=*/true).clamp_min(kLeastSum);

  // Pairs of a token and one of its experts, by expert. No index occurs twice, so gradients too
  // are sums in a fixed order.
  const torch::Tensor experts = chosen.flatten(), order = experts.argsort(/*stable=*/true),
                      counts = experts.bincount({}, n_).to(torch::kCPU),
                      pairs = flat.unsqueeze(1)
                                  .expand({flat.size(0), n_used_, hidden_})
                                  .reshape({-1, hidden_})
                                  .index_select(0, order);
  const auto* sizes = counts.data_ptr<std::int64_t>();
  const auto xs = pairs.split_with_sizes(std::vector<std::int64_t>(sizes, sizes + n_));
  const torch::Tensor y = torch::cat(outputs(block, xs, pass))
                              .index_select(0, order.argsort())
                              .view({-1, n_used_, hidden_});
  return (y * weights.unsqueeze(-1).to(y.scalar_type())).sum(1).view(x.sizes());
}

}  // namespace spectralquant::model
