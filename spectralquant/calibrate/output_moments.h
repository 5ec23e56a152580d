#pragma once
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/calibrate/streams.h"

namespace spectralquant::calibrate {

/// How much each batch that runs holds at once: values of the output distributions, and of rows of
/// the head.
struct SketchSlices {
  std::int64_t distribution_values = std::int64_t{1} << 25;
  std::int64_t head_values = std::int64_t{1} << 23;
};

/// One draw of the sketch of the softmax Fisher: per token e ∈ {−1,+1}^V, z = √p∘e − p(√p·e), sent
/// back through the head.
///
/// Distributions are worked through in slices of tokens, and these in slices of the vocabulary.
///
/// Shapes   hidden: [B, T, D]; gradient: [B, T, D]; diagonal: [V] float64, Σ_tokens p − p², added
///          to.
/// Returns  the gradient at the hidden states: zᵀ W.
torch::Tensor sketch_gradient(model::Model& model, const torch::Tensor& hidden,
                              torch::Generator generator, torch::Tensor& diagonal,
                              const SketchSlices& slices = {});

/// What the draws of batch `index`, counted over all processes, come from.
torch::Generator sketch_generator(std::uint64_t seed, std::size_t index);

/// Adds G of every matrix of the blocks, of the head its diagonal, and C and the token frequency of
/// the embedding: a backward pass block by block, each block run anew from its kept input.
///
/// inputs: streams in front of each block, then those behind the last; given up as they are used.
/// `tell` is called once a piece and step.
/// Memory   one block's weights, G of its matrices, activations of the batches that run; what is
///          finished is put() away.
void add_output_moments(model::Model& model, std::vector<Streams> inputs, std::int64_t n_tokens,
                        const CollectOptions& options, Signals& signals,
                        const std::function<void(std::int64_t block)>& tell);

}  // namespace spectralquant::calibrate
