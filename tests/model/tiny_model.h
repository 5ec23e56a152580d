#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "matrix_text.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/metadata.h"
#include "spectralquant/gguf/writer.h"

/// A small random Qwen3.5 GGUF for tests: every file is a function of its options. Needs no torch.
namespace spectralquant::model {

struct TinyTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  ///< GGUF order: columns first
  std::vector<float> values;         ///< row-major
};

struct TinyOptions {
  std::uint32_t n_blocks = 2;
  /// every n-th block is full attention, the others are gated delta-net
  std::uint32_t full_attention_interval = 2;
  std::uint32_t hidden = 256, feed_forward = 512;
  std::uint32_t n_heads = 4, n_kv_heads = 2, head_size = 64, rope_dims = 16;
  std::uint32_t n_key_heads = 2, n_value_heads = 4, state_size = 64, conv_width = 4;
  bool tied = true;  ///< no output.weight: the embedding is the head
  /// a block behind the others that drafts a further token (MTP), with a norm of its own head
  bool draft = false;
  gguf::Type type = gguf::Type::BF16;  ///< of the matrices: BF16, F16 or F32
  std::uint64_t seed = 1;
  /// Last word on what is written, e.g. to break it: drop a key, change a tensor.
  std::function<void(gguf::Metadata&, std::vector<TinyTensor>&)> edit;
};

inline constexpr std::uint32_t kTinyVocab = 320;  ///< 256 bytes, three special tokens, 61 merges
inline constexpr std::int32_t kTinyEos = 256;     ///< <|endoftext|>; then <|im_start|>, <|im_end|>

namespace tiny {

/// Letters byte-level BPE writes bytes with: printable ones stand for themselves, the others follow
/// U+0100.
inline std::vector<std::string> byte_letters() {
  std::vector<std::string> letters;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    letters.push_back(code < 128 ? std::string(1, static_cast<char>(code))
                                 : std::string{static_cast<char>(0xc0 | (code >> 6)),
                                               static_cast<char>(0x80 | (code & 63))});
  }
  return letters;
}

inline gguf::Value of_i32s(const std::vector<std::int32_t>& values) {
  std::string bytes(12 + 4 * values.size(), '\0');
  const auto type = static_cast<std::uint32_t>(gguf::ValueType::kInt32);
  const std::uint64_t count = values.size();
  std::memcpy(bytes.data(), &type, 4);
  std::memcpy(bytes.data() + 4, &count, 8);
  std::memcpy(bytes.data() + 12, values.data(), 4 * values.size());
  return gguf::Value(gguf::ValueType::kArray, bytes);
}

inline void add_tokenizer(gguf::Metadata& metadata) {
  auto tokens = byte_letters();
  tokens.insert(tokens.end(), {"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
  std::vector<std::string> merges;
  const std::string space = byte_letters()[' '];
  const std::string letters = "etaoinshrdlcumwfgypbvk";
  for (std::size_t i = 0; tokens.size() < kTinyVocab; ++i) {  // " e", " t", …, then "ee", "et", …
    const std::string left =
        i < letters.size() ? space : std::string(1, letters[i / letters.size() - 1]);
    const std::string right(1, letters[i % letters.size()]);
    merges.push_back(left + " " + right);
    tokens.push_back(left + right);
  }
  std::vector<std::int32_t> kinds(kTinyVocab, 1);
  for (int id = kTinyEos; id < kTinyEos + 3; ++id) kinds[id] = 3;  // control
  metadata.set("tokenizer.ggml.model", gguf::Value::of_string("gpt2"));
  metadata.set("tokenizer.ggml.pre", gguf::Value::of_string("qwen35"));
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  metadata.set("tokenizer.ggml.token_type", of_i32s(kinds));
  metadata.set("tokenizer.ggml.merges", gguf::Value::of_strings(merges));
  metadata.set("tokenizer.ggml.eos_token_id", gguf::Value::of_u32(kTinyEos));
  metadata.set("tokenizer.ggml.padding_token_id", gguf::Value::of_u32(kTinyEos));
  metadata.set("tokenizer.ggml.add_bos_token", gguf::Value::of_bool(false));
}

inline gguf::Metadata make_metadata(const TinyOptions& o) {
  gguf::Metadata m;
  const auto u32 = [&m](const char* key, std::uint32_t v) {
    m.set(std::string("qwen35.") + key, gguf::Value::of_u32(v));
  };
  m.set("general.architecture", gguf::Value::of_string("qwen35"));
  m.set("general.type", gguf::Value::of_string("model"));
  m.set("general.name", gguf::Value::of_string("tiny random Qwen3.5"));
  m.set("general.quantization_version", gguf::Value::of_u32(2));
  u32("block_count", o.n_blocks + (o.draft ? 1 : 0));
  if (o.draft) u32("nextn_predict_layers", 1);
  u32("context_length", 4096);
  u32("embedding_length", o.hidden);
  u32("feed_forward_length", o.feed_forward);
  u32("attention.head_count", o.n_heads);
  u32("attention.head_count_kv", o.n_kv_heads);
  u32("attention.key_length", o.head_size);
  u32("attention.value_length", o.head_size);
  m.set("qwen35.attention.layer_norm_rms_epsilon", gguf::Value::of_f32(1e-6f));
  m.set("qwen35.rope.freq_base", gguf::Value::of_f32(1e7f));
  u32("rope.dimension_count", o.rope_dims);
  const std::int32_t half = o.rope_dims / 2;
  m.set("qwen35.rope.dimension_sections", of_i32s({half - 2 * (half / 3), half / 3, half / 3, 0}));
  u32("ssm.conv_kernel", o.conv_width);
  u32("ssm.inner_size", o.n_value_heads * o.state_size);
  u32("ssm.state_size", o.state_size);
  u32("ssm.time_step_rank", o.n_value_heads);
  u32("ssm.group_count", o.n_key_heads);
  u32("full_attention_interval", o.full_attention_interval);
  add_tokenizer(m);
  return m;
}

/// Makes tensors one after the other from one stream of numbers.
class Maker {
 public:
  explicit Maker(std::uint64_t seed) : random_(seed) {}

  void matrix(const std::string& name, std::uint64_t cols, std::uint64_t rows, double gain = 1.0) {
    normal(name, {cols, rows}, 0.0, gain / std::sqrt(static_cast<double>(cols)));
  }
  void normal(const std::string& name, std::vector<std::uint64_t> shape, double mean,
              double deviation) {
    std::size_t n = 1;
    for (auto d : shape) n *= d;
    std::vector<float> values(n);
    for (auto& v : values) v = static_cast<float>(mean + deviation * next_normal());
    tensors.push_back({name, std::move(shape), std::move(values)});
  }

  std::vector<TinyTensor> tensors;

 private:
  double next_normal() {  // Box–Muller; std::normal_distribution differs between libraries
    const auto uniform = [this] { return (static_cast<double>(random_() >> 11) + 0.5) * 0x1p-53; };
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * 3.14159265358979323846 * uniform());
  }
  std::mt19937_64 random_;
};

inline std::vector<TinyTensor> make_tensors(const TinyOptions& o) {
  Maker make(o.seed);
  const std::uint64_t value_size = o.n_value_heads * o.state_size,
                      mixed = 2 * o.n_key_heads * o.state_size + value_size;
  make.normal("token_embd.weight", {o.hidden, kTinyVocab}, 0.0, 0.3);
  make.normal("output_norm.weight", {o.hidden}, 1.0, 0.1);
  if (!o.tied) make.matrix("output.weight", o.hidden, kTinyVocab);
  for (std::uint32_t i = 0; i < o.n_blocks + (o.draft ? 1 : 0); ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    if (i == o.n_blocks) {
      make.matrix(p + "nextn.eh_proj.weight", 2 * o.hidden, o.hidden);
      for (const char* norm : {"enorm", "hnorm", "shared_head_norm"})
        make.normal(p + "nextn." + norm + ".weight", {o.hidden}, 1.0, 0.1);
    }
    make.normal(p + "attn_norm.weight", {o.hidden}, 1.0, 0.1);
    make.normal(p + "post_attention_norm.weight", {o.hidden}, 1.0, 0.1);
    if (i == o.n_blocks || (i + 1) % o.full_attention_interval == 0) {
      const std::uint64_t query = o.n_heads * o.head_size, key = o.n_kv_heads * o.head_size;
      make.matrix(p + "attn_q.weight", o.hidden, 2 * query);
      make.matrix(p + "attn_k.weight", o.hidden, key);
      make.matrix(p + "attn_v.weight", o.hidden, key);
      make.matrix(p + "attn_output.weight", query, o.hidden);
      make.normal(p + "attn_q_norm.weight", {o.head_size}, 1.0, 0.1);
      make.normal(p + "attn_k_norm.weight", {o.head_size}, 1.0, 0.1);
    } else {
      make.matrix(p + "attn_qkv.weight", o.hidden, mixed);
      make.matrix(p + "attn_gate.weight", o.hidden, value_size);
      make.matrix(p + "ssm_beta.weight", o.hidden, o.n_value_heads);
      make.matrix(p + "ssm_alpha.weight", o.hidden, o.n_value_heads);
      make.matrix(p + "ssm_out.weight", value_size, o.hidden);
      make.normal(p + "ssm_conv1d.weight", {o.conv_width, mixed}, 0.0, 0.5);
      make.normal(p + "ssm_norm.weight", {o.state_size}, 1.0, 0.1);
      make.normal(p + "ssm_a", {o.n_value_heads}, -0.3, 0.05);
      make.normal(p + "ssm_dt.bias", {o.n_value_heads}, -1.0, 0.5);
    }
    make.matrix(p + "ffn_gate.weight", o.hidden, o.feed_forward);
    make.matrix(p + "ffn_up.weight", o.hidden, o.feed_forward);
    make.matrix(p + "ffn_down.weight", o.feed_forward, o.hidden);
  }
  return std::move(make.tensors);
}

inline std::uint16_t to_bfloat16(float value) {  // to nearest even; no NaN comes here
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline std::string encode(const std::vector<float>& values, gguf::Type type) {
  if (type == gguf::Type::F32)
    return std::string(reinterpret_cast<const char*>(values.data()), 4 * values.size());
  std::string bytes(2 * values.size(), '\0');
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t v =
        type == gguf::Type::F16 ? gguf::float_to_half(values[i]) : to_bfloat16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &v, 2);
  }
  return bytes;
}

/// Writes the file, replacing an older one; matrices in `type`, the rest in F32. Returns path.
inline std::string write(const std::string& path, const gguf::Metadata& metadata,
                         const std::vector<TinyTensor>& tensors, gguf::Type type) {
  std::vector<gguf::TensorPlan> plans;
  for (const auto& tensor : tensors) {
    const bool is_matrix =
        tensor.shape.size() >= 2 && tensor.name.find("conv1d") == std::string::npos;
    gguf::TensorPlan plan{tensor.name,
                          is_matrix ? type : gguf::Type::F32,
                          static_cast<std::uint32_t>(tensor.shape.size()),
                          {1, 1, 1, 1}};
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) plan.shape[i] = tensor.shape[i];
    plans.push_back(plan);
  }
  gguf::WriteOptions write_options;
  write_options.overwrite = true;
  gguf::Writer writer(path, metadata, plans, write_options);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string bytes = encode(tensors[i].values, plans[i].type);
    writer.write(i, 0, bytes.data(), bytes.size());
  }
  writer.commit();
  return path;
}

}  // namespace tiny

/// Writes the file, replacing an older one; returns path.
inline std::string write_tiny_qwen35(const std::string& path, const TinyOptions& options = {}) {
  auto metadata = tiny::make_metadata(options);
  auto tensors = tiny::make_tensors(options);
  if (options.edit) options.edit(metadata, tensors);
  return tiny::write(path, metadata, tensors, options.type);
}

}  // namespace spectralquant::model
