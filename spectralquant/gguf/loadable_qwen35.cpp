#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/gguf/load_check.h"

namespace spectralquant::gguf {
namespace {

using enum ValueType;

using Shape = std::vector<std::uint64_t>;

/// The tensors that llama.cpp makes for a qwen35 file, from its hyper-parameters.
/// Source  llama.cpp, src/models/qwen35.cpp (load_arch_tensors), create_tensor_qkv.
class Qwen35Tensors {
 public:
  explicit Qwen35Tensors(LoadCheck& check) : check_(check) {
    const auto count = [&](const char* key, std::uint64_t fallback,
                           LoadCheck::Need need = LoadCheck::kOptional) {
      return static_cast<std::uint64_t>(
          check.u32(name(key), static_cast<std::int64_t>(fallback), need));
    };
    hidden_ = count("embedding_length", 0);
    n_all_ = std::clamp<std::int64_t>(check.u32(name("block_count"), 0), 0, kMaxBlocks);
    n_blocks_ = n_all_ - check.u32(name("nextn_predict_layers"), 0);
    const auto n_all = static_cast<std::uint64_t>(n_all_);
    const auto per_block = [&](const char* key) {
      const auto values = check.per_block(name(key), n_all);
      return std::vector<std::uint64_t>(values.begin(), values.end());
    };
    feed_forward_ = per_block("feed_forward_length");
    n_heads_ = per_block("attention.head_count");
    n_kv_heads_ = check.file().metadata().find(name("attention.head_count_kv"))
                      ? per_block("attention.head_count_kv")
                      : n_heads_;
    const std::uint64_t heads = n_heads_.empty() ? 0 : n_heads_[0];
    if (const std::string key = name("attention.head_count");
        heads == 0 && check.problems().empty())
      check.fail(check.file().metadata().find(key)
                     ? fmt::format("metadata key {} is 0 in block 0, which stands for all", key)
                     : fmt::format("metadata key {} is missing", key));
    key_size_ = heads ? count("attention.key_length", hidden_ / heads) : 0;
    value_size_ = heads ? count("attention.value_length", hidden_ / heads) : 0;
    conv_width_ = count("ssm.conv_kernel", 0, LoadCheck::kRequired);
    count("ssm.inner_size", 0, LoadCheck::kRequired);
    state_size_ = count("ssm.state_size", 0, LoadCheck::kRequired);
    n_value_heads_ = count("ssm.time_step_rank", 0, LoadCheck::kRequired);
    n_key_heads_ = count("ssm.group_count", 0, LoadCheck::kRequired);
    check.epsilon(name("attention.layer_norm_rms_epsilon"));
    check_rope();
    check_sections();
    read_block_kinds(n_all);
    check_cache_sizes();
    if (n_blocks_ < 1)
      check.fail(fmt::format("{} of {} blocks predict further tokens; none is left",
                             n_all_ - n_blocks_, n_all_));
  }

  /// By name; empty if the hyper-parameters do not tell.
  ExpectedTensors list() {
    if (!check_.problems().empty()) return {};
    const Tensor* embedding = check_.file().find("token_embd.weight");
    const std::uint64_t n_vocab = embedding ? embedding->n_rows() : 0;
    out_["token_embd.weight"] = {{hidden_, n_vocab}};
    out_["output_norm.weight"] = {{hidden_}};
    out_["output.weight"] = {{hidden_, n_vocab}, false};
    for (std::int64_t i = 0; i < n_all_; ++i) add_block(i, i >= n_blocks_, n_vocab);
    return std::move(out_);
  }

 private:
  std::string name(const std::string& key) const { return "qwen35." + key; }

  /// llama.cpp aborts on others when it runs the model.
  void check_rope() {
    const auto n = static_cast<std::uint64_t>(
        check_.u32(name("rope.dimension_count"), static_cast<std::int64_t>(key_size_)));
    if (n % 2 != 0 || n > key_size_)
      check_.fail(
          fmt::format("metadata key {} is {}; it must be even and at most {}, the size of "
                      "a head",
                      name("rope.dimension_count"), n, key_size_));
  }

  void check_sections() {
    const std::string key = name("rope.dimension_sections");
    const Value* value = check_.file().metadata().find(key);
    std::vector<double> sections;
    if (value && value->type() == kInt32) {  // one for all four
      sections.assign(4, *value->as_number());
    } else {
      value = check_.array(key, {kInt32, kUint32}, LoadCheck::kRequired);
      if (!value) return;
      sections = value->numbers();
    }
    if (sections.size() != 4) {
      check_.fail(
          fmt::format("metadata key {} has {} elements; 4 are needed", key, sections.size()));
      return;
    }
    const double first_three = sections[0] + sections[1] + sections[2];
    if (*std::ranges::min_element(sections) < 0 || first_three <= 0 ||
        first_three + sections[3] > static_cast<double>(key_size_))
      check_.fail(
          fmt::format("metadata key {} is {}; the sum must be at most {}, the size of a head, and "
                      "none negative",
                      key, value->to_display(), key_size_));
  }

  /// The graph has block 0's number of key-value heads everywhere, the cache each block's own:
  /// where a block with attention has another one, llama.cpp loads the file and aborts.
  void check_cache_sizes() {
    for (std::size_t i = 0; i < is_linear_.size(); ++i) {
      if (is_linear_[i] || n_kv_heads_[i] == n_kv_heads_[0]) continue;
      check_.fail(
          fmt::format("metadata key {} is {} in block {}, and {} in block 0: llama.cpp "
                      "takes only one number for all blocks",
                      name("attention.head_count_kv"), n_kv_heads_[i], i, n_kv_heads_[0]));
      return;
    }
  }

  void read_block_kinds(std::uint64_t n_all) {
    const std::string key = name("attention.recurrent_layers");
    if (check_.file().metadata().find(key)) {
      for (const std::int64_t flag : check_.per_block(key, n_all)) is_linear_.push_back(flag != 0);
      return;
    }
    const std::int64_t interval = check_.u32(name("full_attention_interval"), 4);
    if (interval == 0)
      check_.fail(fmt::format("metadata key {} is 0", name("full_attention_interval")));
    for (std::int64_t i = 0; i < n_all_; ++i)
      is_linear_.push_back(i < n_blocks_ && interval > 0 && (i + 1) % interval != 0);
  }

  void add_block(std::int64_t i, bool extra, std::uint64_t n_vocab) {
    const auto at = static_cast<std::size_t>(i);
    const auto add = [&](const char* part, Shape shape, bool required = true) {
      out_[fmt::format("blk.{}.{}", i, part)] = {std::move(shape), required};
    };
    add("attn_norm.weight", {hidden_});
    add("post_attention_norm.weight", {hidden_});
    // llama.cpp makes all blocks from the numbers of block 0
    add("ffn_gate.weight", {hidden_, feed_forward_[0]});
    add("ffn_up.weight", {hidden_, feed_forward_[0]});
    add("ffn_down.weight", {feed_forward_[0], hidden_});
    if (is_linear_[at])
      add_delta_net(add);
    else
      add_attention(i, extra, add);
    if (!extra) return;
    add("nextn.eh_proj.weight", {2 * hidden_, hidden_});
    add("nextn.enorm.weight", {hidden_});
    add("nextn.hnorm.weight", {hidden_});
    add("nextn.embed_tokens.weight", {hidden_, n_vocab}, false);
    add("nextn.shared_head_head.weight", {hidden_, n_vocab}, false);
    add("nextn.shared_head_norm.weight", {hidden_}, false);
  }

  template <typename Add>
  void add_attention(std::int64_t i, bool extra, const Add& add) {
    const std::uint64_t q = 2 * key_size_ * n_heads_[0], k = key_size_ * n_kv_heads_[0],
                        v = value_size_ * n_kv_heads_[0];
    const bool fused = check_.file().find(fmt::format("blk.{}.attn_qkv.weight", i)) != nullptr;
    if (fused) {
      add("attn_qkv.weight", {hidden_, q + k + v});
      add("attn_qkv.bias", {q + k + v}, false);
    } else {
      add("attn_q.weight", {hidden_, q}, !extra);
      add("attn_k.weight", {hidden_, k}, !extra);
      add("attn_v.weight", {hidden_, v}, !extra);
      add("attn_q.bias", {q}, false);
      add("attn_k.bias", {k}, false);
      add("attn_v.bias", {v}, false);
    }
    add("attn_output.weight", {key_size_ * n_heads_[0], hidden_});
    add("attn_q_norm.weight", {key_size_});
    add("attn_k_norm.weight", {key_size_});
  }

  template <typename Add>
  void add_delta_net(const Add& add) {
    const std::uint64_t value = state_size_ * n_value_heads_,
                        mixed = 2 * state_size_ * n_key_heads_ + value;
    add("attn_qkv.weight", {hidden_, mixed});
    add("attn_gate.weight", {hidden_, value});
    add("ssm_conv1d.weight", {conv_width_, mixed});
    add("ssm_dt.bias", {n_value_heads_});
    add("ssm_a", {n_value_heads_});
    add("ssm_beta.weight", {hidden_, n_value_heads_});
    add("ssm_alpha.weight", {hidden_, n_value_heads_});
    add("ssm_norm.weight", {state_size_});
    add("ssm_out.weight", {value, hidden_});
  }

  LoadCheck& check_;
  ExpectedTensors out_;
  std::int64_t n_all_ = 0, n_blocks_ = 0;
  std::uint64_t hidden_ = 0, key_size_ = 0, value_size_ = 0;
  std::uint64_t conv_width_ = 0, state_size_ = 0, n_value_heads_ = 0, n_key_heads_ = 0;
  std::vector<std::uint64_t> feed_forward_, n_heads_, n_kv_heads_;
  std::vector<bool> is_linear_;
};

}  // namespace

ExpectedTensors expect_qwen35(LoadCheck& check) { return Qwen35Tensors(check).list(); }

}  // namespace spectralquant::gguf
