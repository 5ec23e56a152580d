#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

#include "spectralquant/model/architecture.h"
#include "spectralquant/model/experts.h"
#include "spectralquant/model/layers.h"
#include "spectralquant/model/rope.h"

namespace spectralquant::model {
namespace {

enum class ExpertUse { kNever, kIfCounted, kAlways };

/// What one dense architecture has that another has not. All may have biases of q, k and v, and the
/// three of them in one matrix.
struct Spec {
  std::string_view name;        ///< general.architecture
  bool adjacent_pairs = false;  ///< which values of a head rotary embedding turns together
  bool rope_factors = false;    ///< rope_freqs.weight divides frequencies, if it is there
  bool head_norms = false;      ///< every head of q and k has a norm
  bool all_biases = false;      ///< the other products may have biases too
  ExpertUse experts = ExpertUse::kNever;
};

// Source: llama.cpp, src/models/NAME.cpp and llama_model_rope_type().
constexpr std::array kSpecs{
    Spec{.name = "llama",
         .adjacent_pairs = true,
         .rope_factors = true,
         .all_biases = true,
         .experts = ExpertUse::kIfCounted},
    Spec{.name = "qwen2"},
    Spec{.name = "qwen3", .head_norms = true},
    Spec{.name = "qwen3moe", .head_norms = true, .experts = ExpertUse::kAlways},
};

/// Blocks of attention and a gated feed-forward part, or experts, each behind a norm: Llama,
/// Mistral and Mixtral, Qwen2, Qwen3.
class Dense final : public Architecture {
 public:
  Dense(const gguf::File& file, const Spec& spec) : spec_(spec) {
    const HyperParameters get(file);
    n_blocks_ = get.count("block_count");
    hidden_ = get.count("embedding_length");
    eps_ = get.number("attention.layer_norm_rms_epsilon");
    get.require(eps_ >= 0, "attention.layer_norm_rms_epsilon", "which must not be negative");
    const auto* causal = get.find("attention.causal");
    get.require_supported(!causal || causal->as_bool().value_or(true), "attention.causal",
                          "and every token sees those after it");
    read_feed_forward(get);
    read_attention(get);
    read_vocabulary(file);
    require_known_tensors(file, {"output.bias"});
    for (std::int64_t i = 0; i < n_blocks_; ++i) check_block(file, i);
  }

  std::int64_t n_blocks() const override { return n_blocks_; }
  std::string head_name() const override { return head_name_; }
  std::string embedding_name() const override { return "token_embd.weight"; }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int64_t hidden_size() const override { return hidden_; }
  std::int64_t cache_values() const override { return n_blocks_ * 2 * n_kv_heads_ * head_size_; }

  std::vector<Part> parts(std::int64_t block) const override {
    const auto full = [block](const char* part) { return weight_name(block, part); };
    const auto& facts = blocks_[static_cast<std::size_t>(block)];
    Readers reading{full("attn_q"), full("attn_k"), full("attn_v")};
    if (facts.fused_qkv) reading = {full("attn_qkv")};
    const Readers output{full("attn_output")};
    const Part attention{{{reading}, {output}}, facts.plain_attention, /*mixes_tokens=*/true};
    if (experts_.any()) return {attention, {experts_.stages(block), false, false}};
    const Readers inner{full("ffn_gate"), full("ffn_up")}, down{full("ffn_down")};
    return {attention, {{{inner}, {down}}, facts.plain_feed_forward, false}};
  }

  torch::Tensor embed(const torch::Tensor& tokens, const Pass& pass) const override {
    return torch::embedding(pass.weights.get(embedding_name()), tokens).to(pass.weights.dtype());
  }

  torch::Tensor final_norm(const torch::Tensor& x, const Pass& pass) const override {
    return rms_norm(x, pass.weights.get("output_norm.weight"), eps_);
  }

  torch::Tensor part(std::int64_t block, std::size_t index, const torch::Tensor& x,
                     const Pass& pass) const override {
    const auto inner = rms_norm(
        x, pass.weights.get(weight_name(block, index == 0 ? "attn_norm" : "ffn_norm")), eps_);
    if (index == 0) return x + attention(block, inner, pass);
    if (experts_.any()) return x + experts_.forward(block, inner, pass);
    const auto gate = biased_product(pass, block, "ffn_gate", inner),
               up = biased_product(pass, block, "ffn_up", inner);
    return x + biased_product(pass, block, "ffn_down", swiglu(gate, up));
  }

 private:
  struct BlockFacts {
    bool fused_qkv = false;  ///< q, k and v are rows of one matrix
    /// no bias follows the output projection
    bool plain_attention = true, plain_feed_forward = true;
  };

  void read_feed_forward(const HyperParameters& get) {
    const bool counted = get.count_or("expert_count", 0) > 0;
    get.require_supported(!counted || spec_.experts != ExpertUse::kNever, "expert_count",
                          "and experts are not run");
    if (spec_.experts == ExpertUse::kNever || (!counted && spec_.experts != ExpertUse::kAlways)) {
      feed_forward_ = get.count_of_blocks("feed_forward_length");
      return;
    }
    // llama.cpp: where it is not given, each of those used has its share; llama has no such key
    std::int64_t of_expert = 0;
    if (spec_.experts == ExpertUse::kAlways)
      of_expert = get.count_or("expert_feed_forward_length", 0);
    if (of_expert == 0) {
      of_expert = get.count_of_blocks("feed_forward_length");
      if (spec_.experts == ExpertUse::kAlways) of_expert /= get.count("expert_used_count");
    }
    experts_ = Experts(get, hidden_, of_expert);
  }

  void read_attention(const HyperParameters& get) {
    n_heads_ = get.count_of_blocks("attention.head_count");
    n_kv_heads_ = get.count_of_blocks_or("attention.head_count_kv", n_heads_);
    head_size_ = get.count_or("attention.key_length", hidden_ / n_heads_);
    get.require(n_heads_ % n_kv_heads_ == 0, "attention.head_count",
                fmt::format("not a multiple of head_count_kv = {}", n_kv_heads_));
    get.require(get.count_or("attention.value_length", hidden_ / n_heads_) == head_size_,
                "attention.value_length", fmt::format("but keys have {} dimensions", head_size_));
    rope_ = read_rope(get, head_size_);
    rope_.adjacent_pairs = spec_.adjacent_pairs;
    get.require(rope_.n_dims == head_size_, "rope.dimension_count",
                fmt::format("but all {} dimensions of a head turn", head_size_));
    const auto* factors = spec_.rope_factors ? get.file().find("rope_freqs.weight") : nullptr;
    if (!factors) return;
    const auto n = rope_.n_dims / 2;
    require_shape(get.file(), factors->name, {n});
    std::vector<float> divisors(static_cast<std::size_t>(n));
    gguf::decode(*factors, 0, 1, divisors.data());
    if (rope_.scale.empty()) rope_.scale.assign(divisors.size(), 1);
    for (std::size_t i = 0; i < divisors.size(); ++i) rope_.scale[i] /= divisors[i];
  }

  void read_vocabulary(const gguf::File& file) {
    vocab_size_ = static_cast<std::int64_t>(file.require(embedding_name()).n_rows());
    require_shape(file, embedding_name(), {hidden_, vocab_size_});
    require_shape(file, "output_norm.weight", {hidden_});
    head_name_ = file.find("output.weight") ? "output.weight" : embedding_name();
    require_shape(file, head_name_, {hidden_, vocab_size_});
  }

  void check_block(const gguf::File& file, std::int64_t i) {
    const auto check = [&](const char* part, std::initializer_list<std::int64_t> shape) {
      require_shape(file, weight_name(i, part), shape);
      if (spec_.all_biases && shape.size() == 2) check_bias(file, i, part, *(shape.begin() + 1));
    };
    const auto query = n_heads_ * head_size_, key = n_kv_heads_ * head_size_;
    check("attn_norm", {hidden_});
    check("ffn_norm", {hidden_});
    if (spec_.head_norms) {
      check("attn_q_norm", {head_size_});
      check("attn_k_norm", {head_size_});
    }
    const bool fused = file.find(weight_name(i, "attn_qkv")) != nullptr;
    const auto check_reader = [&](const char* part, std::int64_t rows) {
      check(part, {hidden_, rows});
      check_bias(file, i, part, rows);
    };
    if (fused) {
      check_reader("attn_qkv", query + 2 * key);
    } else {
      check_reader("attn_q", query);
      check_reader("attn_k", key);
      check_reader("attn_v", key);
    }
    check("attn_output", {query, hidden_});
    if (experts_.any()) {
      experts_.check_block(file, i);
    } else {
      check("ffn_gate", {hidden_, feed_forward_});
      check("ffn_up", {hidden_, feed_forward_});
      check("ffn_down", {feed_forward_, hidden_});
    }
    const auto plain = [&](const char* part) {
      return file.find(fmt::format("blk.{}.{}.bias", i, part)) == nullptr;
    };
    blocks_.push_back({fused, plain("attn_output"), plain("ffn_down")});
  }

  /// x: [B, T, D], normed → heads [B, T, H, head size] of each.
  std::array<torch::Tensor, 3> queries_keys_values(std::int64_t block, const torch::Tensor& x,
                                                   const Pass& pass) const {
    const auto heads = [&](const torch::Tensor& y) {
      return y.reshape({x.size(0), x.size(1), -1, head_size_});
    };
    if (!blocks_[static_cast<std::size_t>(block)].fused_qkv)
      return {heads(biased_product(pass, block, "attn_q", x)),
              heads(biased_product(pass, block, "attn_k", x)),
              heads(biased_product(pass, block, "attn_v", x))};
    const std::int64_t query = n_heads_ * head_size_, key = n_kv_heads_ * head_size_;
    const auto parts =
        biased_product(pass, block, "attn_qkv", x).split_with_sizes({query, key, key}, -1);
    return {heads(parts[0]), heads(parts[1]), heads(parts[2])};
  }

  /// x: [B, T, D], normed → [B, T, D].
  torch::Tensor attention(std::int64_t block, const torch::Tensor& x, const Pass& pass) const {
    const auto n_sequences = x.size(0), n_tokens = x.size(1);
    const auto first = pass.state ? pass.state->n_past : 0;
    auto [q, k, v] = queries_keys_values(block, x, pass);
    if (spec_.head_norms) {
      q = rms_norm(q, pass.weights.get(weight_name(block, "attn_q_norm")), eps_);
      k = rms_norm(k, pass.weights.get(weight_name(block, "attn_k_norm")), eps_);
    }
    const auto out =
        cached_attention(rotate(q, rope_, first), rotate(k, rope_, first), v, pass.state);
    return biased_product(pass, block, "attn_output",
                          out.reshape({n_sequences, n_tokens, n_heads_ * head_size_}));
  }

  const Spec& spec_;
  std::int64_t n_blocks_ = 0, hidden_ = 0, feed_forward_ = 0, vocab_size_ = 0;
  std::int64_t n_heads_ = 0, n_kv_heads_ = 0, head_size_ = 0;
  double eps_ = 0;
  Rope rope_;
  std::string head_name_;
  Experts experts_;
  std::vector<BlockFacts> blocks_;
};

}  // namespace

std::unique_ptr<Architecture> make_dense(const gguf::File& file) {
  for (const Spec& spec : kSpecs) {
    if (spec.name == file.architecture()) return std::make_unique<Dense>(file, spec);
  }
  return nullptr;  // the list of architectures names others than this table
}

}  // namespace spectralquant::model
