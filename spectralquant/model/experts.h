#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "spectralquant/model/architecture.h"

namespace spectralquant::model {

/// A feed-forward part whose work experts share: a router sends every token to a few of them.
///
/// p = softmax(x Rᵀ), always in float32. Of its largest values, divided by their sum, w_e:
/// Σ_e w_e · (silu(x Gate_eᵀ) ∘ (x Up_eᵀ)) Down_eᵀ.
///
/// Source   llama.cpp: src/llama-graph.cpp, build_moe_ffn.
class Experts {
 public:
  /// None.
  Experts() = default;
  /// Reads expert_count and expert_used_count.
  Experts(const HyperParameters& get, std::int64_t hidden, std::int64_t feed_forward);

  bool any() const { return n_ > 0; }
  /// Throws unless a block has the tensors of its experts, in the right shapes.
  void check_block(const gguf::File& file, std::int64_t block) const;
  /// {gate, up} of each expert, then {down} of each.
  std::vector<Stage> stages(std::int64_t block) const;
  /// Shapes   x: [B, T, D], normed; returns [B, T, D].
  torch::Tensor forward(std::int64_t block, const torch::Tensor& x, const Pass& pass) const;

 private:
  std::vector<MatrixId> matrices(std::int64_t block, std::string_view part) const;
  /// What the experts make of the tokens they get.
  std::vector<torch::Tensor> outputs(std::int64_t block, const std::vector<torch::Tensor>& xs,
                                     const Pass& pass) const;

  std::int64_t n_ = 0, n_used_ = 0, hidden_ = 0, feed_forward_ = 0;
};

/// Share of its experts that a token goes to; 1 without experts.
double expert_share(const gguf::File& file);

}  // namespace spectralquant::model
