#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "spectralquant/core/error.h"
#include "spectralquant/model/architecture.h"
#include "spectralquant/model/layers.h"
#include "spectralquant/model/rope.h"

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
    feed_forward_ = get.count_of_blocks("feed_forward_length");
    eps_ = get.number("attention.layer_norm_rms_epsilon");
    get.require(eps_ >= 0, "attention.layer_norm_rms_epsilon", "which must not be negative");
    const auto* causal = get.find("attention.causal");
    get.require_supported(!causal || causal->as_bool().value_or(true), "attention.causal",
                          "and every token sees those after it");
    // Blocks that predict further tokens (MTP) follow the others and take no part in the model's
    // own prediction.
    const auto n_all = get.count("block_count"), n_extra = get.count_or("nextn_predict_layers", 0);
    get.require(n_extra < n_all, "nextn_predict_layers",
                fmt::format("but there are only {} blocks", n_all));
    read_attention(get);
    read_delta_net(get);
    read_block_kinds(get, n_all - n_extra);
    read_vocabulary(file);
    require_known_tensors(file);
    for (std::int64_t i = 0; i < n_blocks(); ++i) check_block(file, i);
    // llama.cpp runs one such block, and only if all of its tensors are there
    if (n_extra == 1) read_draft_block(file);
  }

  std::int64_t n_blocks() const override { return static_cast<std::int64_t>(is_linear_.size()); }
  std::string head_name() const override { return head_name_; }
  std::string embedding_name() const override { return "token_embd.weight"; }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int64_t hidden_size() const override { return hidden_; }
  std::int64_t cache_values() const override {
    return std::count(is_linear_.begin(), is_linear_.end(), false) * 2 * n_kv_heads_ * head_size_;
  }

  std::vector<Part> parts(std::int64_t block) const override {
    const auto full = [block](const char* part) { return weight_name(block, part); };
    std::vector<Part> parts;
    if (is_draft(block)) {
      parts.push_back({{{Readers{full("nextn.eh_proj")}}}, /*adds_last_product=*/false, false});
    }
    Readers reading{full("attn_q"), full("attn_k"), full("attn_v")}, output{full("attn_output")};
    if (is_linear(block)) {
      reading = {full("attn_qkv"), full("attn_gate"), full("ssm_beta"), full("ssm_alpha")};
      output = {full("ssm_out")};
    }
    parts.push_back({{{reading}, {output}}, true, /*mixes_tokens=*/true});
    const Readers inner{full("ffn_gate"), full("ffn_up")}, down{full("ffn_down")};
    parts.push_back({{{inner}, {down}}, true, false});
    if (is_draft(block) && draft_.own_head) {
      const Readers head{full("nextn.shared_head_head")};
      parts.push_back({{{head}}, /*adds_last_product=*/false, false});
    }
    return parts;
  }

  torch::Tensor embed(const torch::Tensor& tokens, const Pass& pass) const override {
    return look_up(embedding_name(), tokens, pass);
  }

  torch::Tensor final_norm(const torch::Tensor& x, const Pass& pass) const override {
    return rms_norm(x, pass.weights.get("output_norm.weight"), eps_);
  }

  torch::Tensor part(std::int64_t block, std::size_t index, const torch::Tensor& x,
                     const Pass& pass) const override {
    if (is_draft(block)) {
      if (index == 0) return pass.linear(weight_name(block, "nextn.eh_proj"), x);
      if (index == 3) return draft_head(block, x, pass);
      --index;
    }
    if (index == 0) {
      const auto inner = rms_norm(x, pass.weights.get(weight_name(block, "attn_norm")), eps_);
      return x + (is_linear(block) ? delta_net(block, inner, pass) : attention(block, inner, pass));
    }
    const auto inner =
        rms_norm(x, pass.weights.get(weight_name(block, "post_attention_norm")), eps_);
    const auto gate = pass.linear(weight_name(block, "ffn_gate"), inner),
               up = pass.linear(weight_name(block, "ffn_up"), inner);
    return x + pass.linear(weight_name(block, "ffn_down"), swiglu(gate, up));
  }

  std::int64_t n_draft_blocks() const override { return draft_.there ? 1 : 0; }

  torch::Tensor draft_input(std::int64_t block, const torch::Tensor& tokens,
                            const torch::Tensor& hidden, const Pass& pass) const override {
    const auto n = tokens.size(1) - 1;
    const auto embedding =
        draft_.own_embedding ? weight_name(block, "nextn.embed_tokens") : embedding_name();
    const auto next = look_up(embedding, tokens.narrow(1, 1, n), pass);
    return torch::cat({rms_norm(next, pass.weights.get(weight_name(block, "nextn.enorm")), eps_),
                       rms_norm(hidden.narrow(1, 0, n),
                                pass.weights.get(weight_name(block, "nextn.hnorm")), eps_)},
                      -1);
  }

 private:
  bool is_draft(std::int64_t block) const { return block >= n_blocks(); }
  bool is_linear(std::int64_t block) const { return !is_draft(block) && is_linear_[block]; }

  static torch::Tensor look_up(const std::string& embedding, const torch::Tensor& tokens,
                               const Pass& pass) {
    return torch::embedding(pass.weights.get(embedding), tokens).to(pass.weights.dtype());
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
    read_sections(get);
  }

  /// Pairs of a head turn by the position in time, height or width, which are one number in text,
  /// or by a fourth one, which is 0 there: those stand still.
  /// Source  llama.cpp: ggml/src/ggml-cpu/ops.cpp, ggml_mrope_cache_init ("imrope").
  void read_sections(const HyperParameters& get) {
    const auto* stored = get.find("rope.dimension_sections");
    auto sections = stored ? stored->numbers() : std::vector<double>{};
    if (stored && stored->as_int())  // one number for all four
      sections.assign(4, static_cast<double>(*stored->as_int()));
    get.require(sections.size() == 4, "rope.dimension_sections", "where llama.cpp needs 4 numbers");
    const double sum = sections[0] + sections[1] + sections[2] + sections[3];
    get.require(*std::min_element(sections.begin(), sections.end()) >= 0 &&
                    sections[0] + sections[1] + sections[2] > 0 &&
                    sum <= static_cast<double>(head_size_),
                "rope.dimension_sections", "which llama.cpp cannot run");
    for (std::int64_t i = 0; i < rope_.n_dims / 2; ++i) {
      const auto sector = i % static_cast<std::int64_t>(sum);
      if (static_cast<double>(sector) < 3 * sections[sector % 3]) continue;
      if (rope_.scale.empty()) rope_.scale.assign(static_cast<std::size_t>(rope_.n_dims / 2), 1);
      rope_.scale[static_cast<std::size_t>(i)] = 0;
    }
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
      require_shape(file, weight_name(i, part), shape);
    };
    check("attn_norm", {hidden_});
    check("post_attention_norm", {hidden_});
    check("ffn_gate", {hidden_, feed_forward_});
    check("ffn_up", {hidden_, feed_forward_});
    check("ffn_down", {feed_forward_, hidden_});
    if (!is_linear(i)) {
      check_bias(file, i, "attn_q", 2 * n_heads_ * head_size_);
      check_bias(file, i, "attn_k", n_kv_heads_ * head_size_);
      check_bias(file, i, "attn_v", n_kv_heads_ * head_size_);
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

  /// A draft block that is not whole is no reason to refuse the model: it is never run then.
  void read_draft_block(const gguf::File& file) {
    const auto block = n_blocks();
    try {
      check_block(file, block);
      require_shape(file, weight_name(block, "nextn.eh_proj"), {2 * hidden_, hidden_});
      for (const char* norm : {"nextn.enorm", "nextn.hnorm"})
        require_shape(file, weight_name(block, norm), {hidden_});
    } catch (const Error&) {
      return;
    }
    draft_.there = true;
    draft_.own_embedding = file.find(weight_name(block, "nextn.embed_tokens"));
    draft_.own_norm = file.find(weight_name(block, "nextn.shared_head_norm"));
    draft_.own_head = file.find(weight_name(block, "nextn.shared_head_head"));
  }

  /// The draft's head reads x through a norm; nothing is added to x.
  torch::Tensor draft_head(std::int64_t block, const torch::Tensor& x, const Pass& pass) const {
    const auto norm =
        draft_.own_norm ? weight_name(block, "nextn.shared_head_norm") : "output_norm.weight";
    pass.linear(weight_name(block, "nextn.shared_head_head"),
                rms_norm(x, pass.weights.get(norm), eps_));
    return x;
  }

  /// Full attention. x: [B, T, D], normed → [B, T, D].
  torch::Tensor attention(std::int64_t index, const torch::Tensor& x, const Pass& pass) const {
    const auto n_sequences = x.size(0), n_tokens = x.size(1);
    const auto first = pass.state ? pass.state->n_past : 0;
    // attn_q makes, per head, [query | gate of the output].
    const auto both = biased_product(pass, index, "attn_q", x)
                          .view({n_sequences, n_tokens, n_heads_, 2 * head_size_});
    const auto query = both.narrow(-1, 0, head_size_),
               gate = both.narrow(-1, head_size_, head_size_);
    const auto key = biased_product(pass, index, "attn_k", x)
                         .view({n_sequences, n_tokens, n_kv_heads_, head_size_});
    const auto value = biased_product(pass, index, "attn_v", x)
                           .view({n_sequences, n_tokens, n_kv_heads_, head_size_});
    const auto q = rotate(
        rms_norm(query, pass.weights.get(weight_name(index, "attn_q_norm")), eps_), rope_, first);
    const auto k = rotate(rms_norm(key, pass.weights.get(weight_name(index, "attn_k_norm")), eps_),
                          rope_, first);
    const auto out = cached_attention(q, k, value, pass.state) * torch::sigmoid(gate);
    return pass.linear(weight_name(index, "attn_output"),
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
    const auto projected = pass.linear(weight_name(index, "attn_qkv"), x);
    const auto mixed = torch::silu(
        causal_conv(projected, pass.weights.get(weight_name(index, "ssm_conv1d")), conv));
    const auto heads = [&](std::int64_t first, std::int64_t n) {
      return mixed.narrow(-1, first, n * state_size_)
          .reshape({n_sequences, n_tokens, n, state_size_});
    };
    const auto q =
        l2_norm(heads(0, n_key_heads_), eps_) * (1.0 / std::sqrt(static_cast<double>(state_size_)));
    const auto k = l2_norm(heads(key_size, n_key_heads_), eps_);
    const auto v = heads(2 * key_size, n_value_heads_);
    const auto gate = pass.linear(weight_name(index, "attn_gate"), x)
                          .view({n_sequences, n_tokens, n_value_heads_, state_size_});
    const auto beta =
        torch::sigmoid(pass.linear(weight_name(index, "ssm_beta"), x).to(torch::kFloat32));
    const auto alpha = pass.linear(weight_name(index, "ssm_alpha"), x).to(torch::kFloat32);
    const auto step =
        torch::softplus(alpha + pass.weights.get(fmt::format("blk.{}.ssm_dt.bias", index)));
    // ssm_a is −exp(A_log)
    const auto log_decay = step * pass.weights.get(fmt::format("blk.{}.ssm_a", index));
    const auto read = gated_delta_rule(q, k, v, log_decay, beta, memory);
    const auto out =
        swiglu(gate, rms_norm(read, pass.weights.get(weight_name(index, "ssm_norm")), eps_));
    return pass.linear(weight_name(index, "ssm_out"),
                       out.reshape({n_sequences, n_tokens, value_size}));
  }

  std::int64_t hidden_ = 0, feed_forward_ = 0, vocab_size_ = 0;
  std::int64_t n_heads_ = 0, n_kv_heads_ = 0, head_size_ = 0;
  std::int64_t conv_width_ = 0, n_key_heads_ = 0, n_value_heads_ = 0, state_size_ = 0;
  double eps_ = 0;
  Rope rope_;
  std::vector<bool> is_linear_;
  std::string head_name_;
  /// of the block behind the others; what it lacks of its own it takes from the model
  struct {
    bool there = false, own_embedding = false, own_norm = false, own_head = false;
  } draft_;
};

}  // namespace

std::unique_ptr<Architecture> make_qwen35(const gguf::File& file) {
  return std::make_unique<Qwen35>(file);
}

}  // namespace spectralquant::model
