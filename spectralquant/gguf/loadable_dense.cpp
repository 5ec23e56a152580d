#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/gguf/load_check.h"

namespace spectralquant::gguf {
namespace {

using Shape = std::vector<std::uint64_t>;
using Counts = std::vector<std::int64_t>;  ///< one for each block

/// The tensors that llama.cpp makes for a dense file of the architectures below.
/// Source  llama.cpp, src/models/llama.cpp, qwen2.cpp, qwen3.cpp, qwen3moe.cpp (load_arch_tensors),
///         create_tensor_qkv; each tried on the program itself.
class DenseTensors {
 public:
  explicit DenseTensors(LoadCheck& check)
      : check_(check), architecture_(check.file().architecture()) {
    n_blocks_ = std::clamp<std::int64_t>(check.u32(name("block_count"), 0), 0, kMaxBlocks);
    hidden_ = count("embedding_length", 0);
    const auto n = static_cast<std::uint64_t>(n_blocks_);
    n_heads_ = check.per_block(name("attention.head_count"), n);
    n_kv_heads_ = check.file().metadata().find(name("attention.head_count_kv"))
                      ? check.per_block(name("attention.head_count_kv"), n)
                      : n_heads_;
    feed_forward_ = check.per_block(name("feed_forward_length"), n);
    check.epsilon(name("attention.layer_norm_rms_epsilon"));
    const auto heads = n_heads_.empty() ? 0 : static_cast<std::uint64_t>(n_heads_[0]);
    if (heads > 0) {
      key_size_ = count("attention.key_length", hidden_ / heads);
      value_size_ = count("attention.value_length", hidden_ / heads);
    }
    n_experts_ = count("expert_count", 0);
    if (architecture_ == "qwen3moe") check_experts();
    rope_dims_ = count("rope.dimension_count", key_size_);
    check_rope();
    check_cache_sizes();
    if (architecture_ == "llama") check.scalar(name("vocab_size"), ValueType::kUint32);
  }

  ExpectedTensors list() {
    if (!check_.problems().empty()) return {};
    if (n_experts_ > 0 && architecture_ != "llama" && architecture_ != "qwen3moe") return {};
    const Tensor* embedding = check_.file().find("token_embd.weight");
    const std::uint64_t n_vocab = embedding ? embedding->n_rows() : 0;
    out_["token_embd.weight"] = {{hidden_, n_vocab}};
    out_["output_norm.weight"] = {{hidden_}};
    out_["output.weight"] = {{hidden_, n_vocab}, false};
    if (architecture_ == "qwen2") out_["output.bias"] = {{n_vocab}, false};
    if (architecture_ == "llama") {
      const Value* scaling = check_.file().metadata().find(name("rope.scaling.type"));
      if (scaling && scaling->as_string() == "longrope") {
        out_["rope_factors_long.weight"] = {{rope_dims_ / 2}, false};
        out_["rope_factors_short.weight"] = {{rope_dims_ / 2}, false};
      } else {
        out_["rope_freqs.weight"] = {{rope_dims_ / 2}, false};
      }
    }
    const std::int64_t n_extra = check_.u32(name("nextn_predict_layers"), 0);
    for (std::int64_t i = 0; i < n_blocks_ - n_extra; ++i) add_block(i);
    return std::move(out_);
  }

 private:
  std::string name(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }

  std::uint64_t count(std::string_view key, std::uint64_t fallback) {
    return static_cast<std::uint64_t>(check_.u32(name(key), static_cast<std::int64_t>(fallback)));
  }

  void check_experts() {
    if (n_experts_ == 0)
      check_.fail(fmt::format("metadata key {} is missing or 0", name("expert_count")));
    const std::uint64_t n_used = count("expert_used_count", 0);
    expert_size_ = count("expert_feed_forward_length", 0);
    if (expert_size_ == 0 && n_used > 0 && !feed_forward_.empty())
      expert_size_ = static_cast<std::uint64_t>(feed_forward_[0]) / n_used;
  }

  void check_rope() {
    if (rope_dims_ != key_size_)
      check_.fail(fmt::format("metadata key {} is {}; heads have {} dimensions",
                              name("rope.dimension_count"), rope_dims_, key_size_));
  }

  /// The graph has block 0's number of key-value heads everywhere, the cache each block's own:
  /// where they differ, llama.cpp loads the file and aborts.
  void check_cache_sizes() {
    const auto other =
        std::ranges::find_if(n_kv_heads_, [&](std::int64_t n) { return n != n_kv_heads_.front(); });
    if (other == n_kv_heads_.end()) return;
    check_.fail(fmt::format(
        "metadata key {} is {} in block {}, and {} in block 0: llama.cpp takes "
        "only one number for all blocks",
        name("attention.head_count_kv"), *other, other - n_kv_heads_.begin(), n_kv_heads_.front()));
  }

  void add(std::int64_t block, std::string_view part, Shape shape, bool required = true) {
    out_[fmt::format("blk.{}.{}", block, part)] = {std::move(shape), required};
  }

  void add_block(std::int64_t i) {
    // llama.cpp makes all blocks from the numbers of block 0
    const auto of = [](const Counts& counts) { return static_cast<std::uint64_t>(counts[0]); };
    const std::uint64_t q = key_size_ * of(n_heads_), k = key_size_ * of(n_kv_heads_),
                        v = value_size_ * of(n_kv_heads_), ffn = of(feed_forward_);
    add(i, "attn_norm.weight", {hidden_});
    add(i, "ffn_norm.weight", {hidden_});
    if (check_.file().find(fmt::format("blk.{}.attn_qkv.weight", i))) {
      add(i, "attn_qkv.weight", {hidden_, q + k + v});
      add(i, "attn_qkv.bias", {q + k + v}, false);
    } else {
      add(i, "attn_q.weight", {hidden_, q});
      add(i, "attn_k.weight", {hidden_, k});
      add(i, "attn_v.weight", {hidden_, v});
      add(i, "attn_q.bias", {q}, false);
      add(i, "attn_k.bias", {k}, false);
      add(i, "attn_v.bias", {v}, false);
    }
    add(i, "attn_output.weight", {q, hidden_});
    if (architecture_.starts_with("qwen3")) {
      add(i, "attn_q_norm.weight", {key_size_});
      add(i, "attn_k_norm.weight", {key_size_});
    }
    if (architecture_ == "llama") add(i, "attn_output.bias", {hidden_}, false);
    if (n_experts_ > 0) return add_experts(i, expert_size_ > 0 ? expert_size_ : ffn);
    add(i, "ffn_gate.weight", {hidden_, ffn});
    add(i, "ffn_up.weight", {hidden_, ffn});
    add(i, "ffn_down.weight", {ffn, hidden_});
    if (architecture_ != "llama") return;
    add(i, "ffn_gate.bias", {ffn}, false);
    add(i, "ffn_up.bias", {ffn}, false);
    add(i, "ffn_down.bias", {hidden_}, false);
  }

  void add_experts(std::int64_t i, std::uint64_t size) {
    add(i, "ffn_gate_inp.weight", {hidden_, n_experts_});
    add(i, "ffn_gate_exps.weight", {hidden_, size, n_experts_}, architecture_ == "qwen3moe");
    add(i, "ffn_up_exps.weight", {hidden_, size, n_experts_});
    add(i, "ffn_down_exps.weight", {size, hidden_, n_experts_});
  }

  LoadCheck& check_;
  std::string architecture_;
  ExpectedTensors out_;
  std::int64_t n_blocks_ = 0;
  std::uint64_t hidden_ = 0, key_size_ = 0, value_size_ = 0, rope_dims_ = 0;
  std::uint64_t n_experts_ = 0, expert_size_ = 0;  ///< expert_size_: 0, as feed_forward_
  Counts feed_forward_, n_heads_, n_kv_heads_;
};

}  // namespace

ExpectedTensors expect_dense(LoadCheck& check) { return DenseTensors(check).list(); }

}  // namespace spectralquant::gguf
