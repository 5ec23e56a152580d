#pragma once
#include "model/tiny_model.h"

/// Small random GGUFs of the dense architectures for tests. Needs no torch.
namespace spectralquant::model {

struct TinyDenseOptions {
  std::string architecture = "llama";  ///< llama, qwen2, qwen3 or qwen3moe
  std::uint32_t n_blocks = 2;
  std::uint32_t hidden = 256, feed_forward = 512;
  std::uint32_t n_heads = 4, n_kv_heads = 2, head_size = 64;
  bool tied = true;
  /// whatever the architecture may have and need not: biases, rope_freqs.weight
  bool optional_tensors = false;
  bool fused_qkv = false;                           ///< q, k and v in one matrix
  std::uint32_t n_experts = 0, n_experts_used = 2;  ///< 0: none; each of size feed_forward
  gguf::Type type = gguf::Type::F32;
  std::uint64_t seed = 1;
  std::function<void(gguf::Metadata&, std::vector<TinyTensor>&)> edit;
};

namespace tiny {

inline gguf::Metadata make_metadata(const TinyDenseOptions& o) {
  gguf::Metadata m;
  const auto u32 = [&](const char* key, std::uint32_t v) {
    m.set(o.architecture + "." + key, gguf::Value::of_u32(v));
  };
  m.set("general.architecture", gguf::Value::of_string(o.architecture));
  m.set("general.type", gguf::Value::of_string("model"));
  m.set("general.name", gguf::Value::of_string("tiny random " + o.architecture));
  m.set("general.quantization_version", gguf::Value::of_u32(2));
  u32("block_count", o.n_blocks);
  u32("context_length", 4096);
  u32("embedding_length", o.hidden);
  u32("feed_forward_length", o.feed_forward);
  if (o.n_experts > 0) {
    u32("expert_count", o.n_experts);
    u32("expert_used_count", o.n_experts_used);
    if (o.architecture != "llama") u32("expert_feed_forward_length", o.feed_forward);
  }
  u32("attention.head_count", o.n_heads);
  u32("attention.head_count_kv", o.n_kv_heads);
  if (o.n_heads * o.head_size != o.hidden) {
    u32("attention.key_length", o.head_size);
    u32("attention.value_length", o.head_size);
  }
  m.set(o.architecture + ".attention.layer_norm_rms_epsilon", gguf::Value::of_f32(1e-6f));
  m.set(o.architecture + ".rope.freq_base", gguf::Value::of_f32(1e5f));
  add_tokenizer(m);
  return m;
}

/// A router that is sure of its choice, and stacks of its experts' matrices.
inline void add_experts(Maker& make, const std::string& prefix, const TinyDenseOptions& o) {
  const auto stack = [&](const char* part, std::uint64_t cols, std::uint64_t rows) {
    make.matrix(prefix + part, cols, rows * o.n_experts, 1.0);
    make.tensors.back().shape = {cols, rows, o.n_experts};
  };
  make.matrix(prefix + "ffn_gate_inp.weight", o.hidden, o.n_experts, 1.5);
  stack("ffn_gate_exps.weight", o.hidden, o.feed_forward);
  stack("ffn_up_exps.weight", o.hidden, o.feed_forward);
  stack("ffn_down_exps.weight", o.feed_forward, o.hidden);
}

/// Scaled so that heads attend to some tokens more than to others, and output distributions are
/// neither flat nor wider than the 16 nats that llama-perplexity stores.
inline std::vector<TinyTensor> make_tensors(const TinyDenseOptions& o) {
  Maker make(o.seed);
  const bool llama = o.architecture == "llama";
  const std::uint64_t query = o.n_heads * o.head_size, key = o.n_kv_heads * o.head_size;
  make.normal("token_embd.weight", {o.hidden, kTinyVocab}, 0.0, 0.12);
  make.normal("output_norm.weight", {o.hidden}, 1.0, 0.1);
  if (!o.tied) make.matrix("output.weight", o.hidden, kTinyVocab, 2.0);
  if (llama && o.optional_tensors) make.normal("rope_freqs.weight", {o.head_size / 2}, 3.0, 0.8);
  for (std::uint32_t i = 0; i < o.n_blocks; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    const auto product = [&](const char* part, std::uint64_t cols, std::uint64_t rows, double gain,
                             bool may_have_bias) {
      make.matrix(p + part + ".weight", cols, rows, gain);
      if (may_have_bias && o.optional_tensors) make.normal(p + part + ".bias", {rows}, 0.0, 0.3);
    };
    make.normal(p + "attn_norm.weight", {o.hidden}, 1.0, 0.1);
    make.normal(p + "ffn_norm.weight", {o.hidden}, 1.0, 0.1);
    if (o.fused_qkv) {
      product("attn_qkv", o.hidden, query + 2 * key, 1.5, true);
    } else {
      product("attn_q", o.hidden, query, 1.5, true);
      product("attn_k", o.hidden, key, 1.5, true);
      product("attn_v", o.hidden, key, 1.0, true);
    }
    product("attn_output", query, o.hidden, 1.0, llama);
    if (o.architecture.starts_with("qwen3")) {
      make.normal(p + "attn_q_norm.weight", {o.head_size}, 1.5, 0.1);
      make.normal(p + "attn_k_norm.weight", {o.head_size}, 1.5, 0.1);
    }
    if (o.n_experts > 0) {
      add_experts(make, p, o);
      continue;
    }
    product("ffn_gate", o.hidden, o.feed_forward, 1.0, llama);
    product("ffn_up", o.hidden, o.feed_forward, 1.0, llama);
    product("ffn_down", o.feed_forward, o.hidden, 1.0, llama);
  }
  return std::move(make.tensors);
}

}  // namespace tiny

/// Writes the file, replacing an older one; returns path.
inline std::string write_tiny_dense(const std::string& path, const TinyDenseOptions& options = {}) {
  auto metadata = tiny::make_metadata(options);
  auto tensors = tiny::make_tensors(options);
  if (options.edit) options.edit(metadata, tensors);
  return tiny::write(path, metadata, tensors, options.type);
}

}  // namespace spectralquant::model
