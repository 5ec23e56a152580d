#include <fmt/format.h>

#include <cmath>

#include "spectralquant/model/architecture.h"
#include "spectralquant/model/layers.h"

namespace spectralquant::model {
namespace {

/// Qwen3.5: blocks of gated delta-net (linear) attention, every n-th one full attention with a
/// gated output.
/// Source  llama.cpp, src/models/qwen35.cpp; Hugging Face transformers, qwen3_5.
class Qwen35 final : public Architecture {
 public:
  explicit Qwen35(const gguf::File& file) {
    const HyperParameters get(file);
    hidden_ = get.count("embedding_length");
    feed_forward_ = get.count("feed_forward_length");
    eps_ = get.positive("attention.layer_norm_rms_epsilon");
    // Blocks that predict further tokens (MTP) follow the others and take no part in the model's
    // own prediction.
    const auto n_all = get.count("block_count"), n_extra = get.count_or("nextn_predict_layers", 0);
    get.require(n_extra < n_all, "nextn_predict_layers",
                fmt::format("but there are only {} blocks", n_all));
    read_attention(get);
    read_delta_net(get);
    read_block_kinds(get, n_all - n_extra);
    read_vocabulary(file);
    for (std::int64_t i = 0; i < n_blocks(); ++i) check_block(file, i);
  }

  std::int64_t n_blocks() const override { return static_cast<std::int64_t>(is_linear_.size()); }
  std::string head_name() const override { return head_name_; }
  std::string embedding_name() const override { return "token_embd.weight"; }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int64_t hidden_size() const override { return hidden_; }

  std::vector<std::vector<std::string>> stages(std::int64_t block) const override {
    const auto full = [block](const char* part) { return name(block, part); };
    std::vector<std::vector<std::string>> stages;
    if (is_linear_[block]) {
      stages = {{full("attn_qkv"), full("attn_gate"), full("ssm_beta"), full("ssm_alpha")},
                {full("ssm_out")}};
    } else {
      stages = {{full("attn_q"), full("attn_k"), full("attn_v")}, {full("attn_output")}};
    }
    stages.push_back({full("ffn_gate"), full("ffn_up")});
    stages.push_back({full("ffn_down")});
    return stages;
  }

  torch::Tensor embed(const torch::Tensor& tokens, const Pass& pass) const override {
    return torch::embedding(pass.weights.get(embedding_name()), tokens).to(pass.weights.dtype());
  }

  torch::Tensor final_norm(const torch::Tensor& x, const Pass& pass) const override {
    return rms_norm(x, pass.weights.get("output_norm.weight"), eps_);
  }

  torch::Tensor half(std::int64_t index, int half, const torch::Tensor& x,
                     const Pass& pass) const override {
    const auto inner = rms_norm(
        x, pass.weights.get(name(index, half == 0 ? "attn_norm" : "post_attention_norm")), eps_);
    if (half == 0)
      return x +
             (is_linear_[index] ? delta_net(index, inner, pass) : attention(index, inner, pass));
    const auto gate = pass.linear(name(index, "ffn_gate"), inner),
               up = pass.linear(name(index, "ffn_up"), inner);
    return x + pass.linear(name(index, "ffn_down"), swiglu(gate, up));
  }

 private:
  static std::string name(std::int64_t block, std::string_view part) {
    return fmt::format("blk.{}.{}.weight", block, part);
  }

  void read_attention(const HyperParameters& get) {
    n_heads_ = get.count("attention.head_count");
    n_kv_heads_ = get.count("attention.head_count_kv");
    head_size_ = get.count_or("attention.key_length", hidden_ / n_heads_);
    rope_.n_dims = get.count("rope.dimension_count");
    rope_.base = get.positive("rope.freq_base");
    get.require(n_heads_ % n_kv_heads_ == 0, "attention.head_count",
                fmt::format("not a multiple of head_count_kv = {}", n_kv_heads_));
    get.require(get.count_or("attention.value_length", head_size_) == head_size_,
                "attention.value_length", fmt::format("but keys have {} dimensions", head_size_));
    get.require(
        rope_.n_dims % 2 == 0 && rope_.n_dims <= head_size_, "rope.dimension_count",
        fmt::format("neither odd nor above the head's {} dimensions is possible", head_size_));
    const auto* scaling = get.find("rope.scaling.type");
    get.require(!scaling || scaling->as_string() == "none", "rope.scaling.type",
                "which is not supported for this architecture");
  }

  void read_delta_net(const HyperParameters& get) {
    conv_width_ = get.count("ssm.conv_kernel");
    n_key_heads_ = get.count("ssm.group_count");
    n_value_heads_ = get.count("ssm.time_step_rank");
    state_size_ = get.count("ssm.state_size");
    get.require(get.count("ssm.inner_size") == n_value_heads_ * state_size_, "ssm.inner_size",
                fmt::format("but {} value heads of {} make {}", n_value_heads_, state_size_,
                            n_value_heads_ * state_size_));
    get.require(n_value_heads_ % n_key_heads_ == 0, "ssm.time_step_rank",
                fmt::format("not a multiple of group_count = {}", n_key_heads_));
  }

  void read_block_kinds(const HyperParameters& get, std::int64_t n_blocks) {
    const auto interval = get.count_or("full_attention_interval", 4);  // llama.cpp's own default
    get.require(interval >= 1, "full_attention_interval", "which must be at least 1");
    for (std::int64_t i = 0; i < n_blocks; ++i) is_linear_.push_back((i + 1) % interval != 0);
    // newer files may say it block by block
    const auto* listed = get.find("attention.recurrent_layers");
    if (!listed) return;
    const auto flags = listed->numbers();
    get.require(static_cast<std::int64_t>(flags.size()) >= n_blocks, "attention.recurrent_layers",
                fmt::format("too short for {} blocks", n_blocks));
    for (std::int64_t i = 0; i < n_blocks; ++i) is_linear_[i] = flags[i] != 0;
  }

  void read_vocabulary(const gguf::File& file) {
    vocab_size_ = static_cast<std::int64_t>(file.require(embedding_name()).n_rows());
    require_shape(file, embedding_name(), {hidden_, vocab_size_});
    require_shape(file, "output_norm.weight", {hidden_});
    head_name_ = file.find("output.weight") ? "output.weight" : embedding_name();
    require_shape(file, head_name_, {hidden_, vocab_size_});
  }

  void check_block(const gguf::File& file, std::int64_t i) const {
    const auto check = [&](const char* part, std::initializer_list<std::int64_t> shape) {
      require_shape(file, name(i, part), shape);
    };
    check("attn_norm", {hidden_});
    check("post_attention_norm", {hidden_});
    check("ffn_gate", {hidden_, feed_forward_});
    check("ffn_up", {hidden_, feed_forward_});
    check("ffn_down", {feed_forward_, hidden_});
    if (!is_linear_[i]) {
      check("attn_q", {hidden_, 2 * n_heads_ * head_size_});
      check("attn_k", {hidden_, n_kv_heads_ * head_size_});
      check("attn_v", {hidden_, n_kv_heads_ * head_size_});
      check("attn_q_norm", {head_size_});
      check("attn_k_norm", {head_size_});
      check("attn_output", {n_heads_ * head_size_, hidden_});
      return;
    }
    const auto value_size = n_value_heads_ * state_size_,
               mixed_size = 2 * n_key_heads_ * state_size_ + value_size;
    check("attn_qkv", {hidden_, mixed_size});
    check("attn_gate", {hidden_, value_size});
    check("ssm_beta", {hidden_, n_value_heads_});
    check("ssm_alpha", {hidden_, n_value_heads_});
    check("ssm_out", {value_size, hidden_});
    check("ssm_conv1d", {conv_width_, mixed_size});
    check("ssm_norm", {state_size_});
    require_shape(file, fmt::format("blk.{}.ssm_a", i), {n_value_heads_});
    require_shape(file, fmt::format("blk.{}.ssm_dt.bias", i), {n_value_heads_});
  }

  /// Full attention. x: [B, T, D], normed → [B, T, D].
  torch::Tensor attention(std::int64_t index, const torch::Tensor& x, const Pass& pass) const {
    const auto n_sequences = x.size(0), n_tokens = x.size(1);
    const auto first = pass.state ? pass.state->n_past : 0;
    // attn_q makes, per head, [query | gate of the output].
    const auto both = pass.linear(name(index, "attn_q"), x)
                          .view({n_sequences, n_tokens, n_heads_, 2 * head_size_});
    const auto query = both.narrow(-1, 0, head_size_),
               gate = both.narrow(-1, head_size_, head_size_);
    const auto key = pass.linear(name(index, "attn_k"), x)
                         .view({n_sequences, n_tokens, n_kv_heads_, head_size_});
    const auto value = pass.linear(name(index, "attn_v"), x)
                           .view({n_sequences, n_tokens, n_kv_heads_, head_size_});
    const auto q =
        rotate(rms_norm(query, pass.weights.get(name(index, "attn_q_norm")), eps_), rope_, first);
    auto k = rotate(rms_norm(key, pass.weights.get(name(index, "attn_k_norm")), eps_), rope_, first)
                 .transpose(1, 2);
    auto v = value.transpose(1, 2);
    if (pass.state) {
      k = pass.state->append("k", k);
      v = pass.state->append("v", v);
      pass.state->n_past += n_tokens;
    }
    const auto out = causal_attention(q, k, v) * torch::sigmoid(gate);
    return pass.linear(name(index, "attn_output"),
                       out.reshape({n_sequences, n_tokens, n_heads_ * head_size_}));
  }

  /// Gated delta-net. x: [B, T, D], normed → [B, T, D].
  torch::Tensor delta_net(std::int64_t index, const torch::Tensor& x, const Pass& pass) const {
    const auto n_sequences = x.size(0), n_tokens = x.size(1);
    const auto key_size = n_key_heads_ * state_size_, value_size = n_value_heads_ * state_size_;
    torch::Tensor *conv = nullptr, *memory = nullptr;
    if (pass.state) {
      conv = &pass.state->tensors["conv"];
      memory = &pass.state->tensors["memory"];
      if (!conv->defined())
        *conv =
            torch::zeros({n_sequences, conv_width_ - 1, 2 * key_size + value_size}, x.options());
      if (!memory->defined()) {
        *memory = torch::zeros({n_sequences, n_value_heads_, state_size_, state_size_},
                               x.options().dtype(torch::kFloat32));
      }
      pass.state->n_past += n_tokens;
    }
    const auto projected = pass.linear(name(index, "attn_qkv"), x);
    const auto mixed =
        torch::silu(causal_conv(projected, pass.weights.get(name(index, "ssm_conv1d")), conv));
    const auto heads = [&](std::int64_t first, std::int64_t n) {
      return mixed.narrow(-1, first, n * state_size_)
          .reshape({n_sequences, n_tokens, n, state_size_});
    };
    const auto q =
        l2_norm(heads(0, n_key_heads_), eps_) * (1.0 / std::sqrt(static_cast<double>(state_size_)));
    const auto k = l2_norm(heads(key_size, n_key_heads_), eps_);
    const auto v = heads(2 * key_size, n_value_heads_);
    const auto gate = pass.linear(name(index, "attn_gate"), x)
                          .view({n_sequences, n_tokens, n_value_heads_, state_size_});
    const auto beta = torch::sigmoid(pass.linear(name(index, "ssm_beta"), x).to(torch::kFloat32));
    const auto alpha = pass.linear(name(index, "ssm_alpha"), x).to(torch::kFloat32);
    const auto step =
        torch::softplus(alpha + pass.weights.get(fmt::format("blk.{}.ssm_dt.bias", index)));
    // ssm_a is −exp(A_log)
    const auto log_decay = step * pass.weights.get(fmt::format("blk.{}.ssm_a", index));
    const auto read = gated_delta_rule(q, k, v, log_decay, beta, memory);
    const auto out =
        rms_norm(read, pass.weights.get(name(index, "ssm_norm")), eps_) * torch::silu(gate);
    return pass.linear(name(index, "ssm_out"), out.reshape({n_sequences, n_tokens, value_size}));
  }

  std::int64_t hidden_ = 0, feed_forward_ = 0, vocab_size_ = 0;
  std::int64_t n_heads_ = 0, n_kv_heads_ = 0, head_size_ = 0;
  std::int64_t conv_width_ = 0, n_key_heads_ = 0, n_value_heads_ = 0, state_size_ = 0;
  double eps_ = 0;
  Rope rope_;
  std::vector<bool> is_linear_;
  std::string head_name_;
};

}  // namespace

std::unique_ptr<Architecture> make_qwen35(const gguf::File& file) {
  return std::make_unique<Qwen35>(file);
}

}  // namespace spectralquant::model
