// What llama.cpp refuses to load, and what it loads: each verdict was tried on llama.cpp itself,
// and is tried again where it is installed (SlowStockLoadable).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "gguf/gguf_bytes.h"
#include "model/tiny_dense.h"
#include "spectralquant/gguf/loadable.h"
#include "stock_tool.h"

namespace spectralquant::gguf {
namespace {

using model::TinyTensor;
using test::le;
using test::str;
using testing::HasSubstr;
using Tensors = std::vector<TinyTensor>;

Value u16(std::uint16_t v) { return {ValueType::kUint16, le(v)}; }
Value i32(std::int32_t v) { return {ValueType::kInt32, le(v)}; }
Value u8(std::uint8_t v) { return {ValueType::kUint8, le(v)}; }
Value f64(double v) { return {ValueType::kFloat64, le(v)}; }
template <typename T>
Value array(ValueType type, const std::vector<T>& values) {
  std::string bytes = le(static_cast<std::uint32_t>(type)) + le<std::uint64_t>(values.size());
  for (const T v : values) bytes += le(v);
  return {ValueType::kArray, bytes};
}
Value i32s(std::size_t n, std::int32_t v = 1) {
  return array(ValueType::kInt32, std::vector<std::int32_t>(n, v));
}
std::vector<std::string> tokens_of(const Metadata& metadata) {
  std::vector<std::string> out;
  for (const auto word : metadata.find("tokenizer.ggml.tokens")->strings()) out.emplace_back(word);
  return out;
}

struct Variant {
  std::string problem;  ///< a part of it; "" if llama.cpp loads the file
  std::function<void(Metadata&, Tensors&)> edit;
};

/// A key of another value.
Variant key(const std::string& name, Value value, const std::string& problem) {
  return {problem, [=](Metadata& m, Tensors&) { m.set(name, value); }};
}
Variant without(const std::string& name, const std::string& problem) {
  return {problem, [=](Metadata& m, Tensors&) { m.erase(name); }};
}
Variant vocabulary(const std::function<void(std::vector<std::string>&)>& edit,
                   const std::string& problem) {
  return {problem, [=](Metadata& m, Tensors&) {
            auto tokens = tokens_of(m);
            edit(tokens);
            m.set("tokenizer.ggml.tokens", Value::of_strings(tokens));
          }};
}
Variant tensor(const std::string& name, std::vector<std::uint64_t> shape,
               const std::string& problem) {
  return {problem, [=](Metadata&, Tensors& tensors) {
            std::erase_if(tensors, [&](const TinyTensor& t) { return t.name == name; });
            std::size_t n = 1;
            for (const auto d : shape) n *= d;
            if (!shape.empty()) tensors.push_back({name, shape, std::vector<float>(n, 0.5f)});
          }};
}

std::vector<Variant> variants() {
  const std::string q = "qwen35.", t = "tokenizer.ggml.";
  std::vector<Variant> list = {
      {"", [](Metadata&, Tensors&) {}},
      // numbers are not converted
      key("general.name", Value::of_u32(1), "general.name is 1 of type u32"),
      key(q + "block_count", Value::of_u64(2), "block_count is 2 of type u64"),
      key(q + "block_count", i32(2), "block_count is 2 of type i32"),
      key(q + "context_length", u16(4096), "context_length"),
      key(q + "embedding_length", Value::of_u64(256), "embedding_length"),
      key(q + "attention.head_count", Value::of_u64(4), "head_count"),
      key(q + "attention.key_length", Value::of_u64(64), "key_length"),
      key(q + "rope.freq_base", f64(1e7), "rope.freq_base is 10000000 of type f64"),
      key(q + "rope.scaling.factor", Value::of_u32(1), "rope.scaling.factor"),
      key(q + "attention.causal", u8(1), "attention.causal"),
      key(q + "attention.layer_norm_rms_epsilon", f64(1e-6), "layer_norm_rms_epsilon"),
      key(q + "expert_count", Value::of_u64(0), "expert_count"),
      key(q + "nextn_predict_layers", Value::of_u64(0), "nextn_predict_layers"),
      key(q + "classifier.output_labels", i32s(2), "classifier.output_labels is an array of i32"),
      key(q + "classifier.output_labels", Value::of_u32(2), ""),
      key(q + "classifier.output_labels", Value::of_strings({"a"}), ""),
      key(q + "classifier.activation", Value::of_u32(1), "classifier.activation"),
      key(q + "classifier.pooling_type", i32(0), "classifier.pooling_type"),
      key(q + "rope.section_order", i32s(4), "rope.section_order"),
      key(q + "full_attention_interval", Value::of_u64(2), "full_attention_interval"),
      // keys that are needed, and keys that are not
      without("general.architecture", "general.architecture is missing"),
      without(q + "context_length", "context_length is missing"),
      without(q + "ssm.conv_kernel", "ssm.conv_kernel is missing"),
      without(q + "rope.dimension_sections", "rope.dimension_sections is missing"),
      without(q + "feed_forward_length", "ffn_"),
      without(q + "rope.freq_base", ""),
      without(q + "rope.dimension_count", ""),
      key(q + "rope.dimension_count", Value::of_u32(15), "rope.dimension_count is 15"),
      key(q + "rope.dimension_count", Value::of_u32(32), "at most 16"),
      without(q + "attention.key_length", ""),
      without("general.name", ""),
      key("general.quantization_version", Value::of_u64(2), ""),
      key("tokenizer.chat_template", Value::of_u32(2), ""),
      key(q + "vocab_size", Value::of_u64(5), ""),
      // values
      key(q + "block_count", Value::of_u32(0), "block_count is 0; 1 to 512"),
      key(q + "block_count", Value::of_u32(513), "block_count is 513"),
      key(q + "block_count", Value::of_u32(3), "tensor blk.2."),
      key(q + "block_count", Value::of_u32(1), "lies behind the last block"),
      key(q + "rope.scaling.type", Value::of_string("cubic"), "\"cubic\""),
      key(q + "rope.scaling.type", Value::of_string("linear"), ""),
      key(q + "expert_count", Value::of_u32(4), "0 of 4 experts"),
      key(q + "expert_used_count", Value::of_u32(2), "2 of 0 experts"),
      // arrays
      key(q + "attention.head_count", i32s(2, 4), ""),
      key(q + "attention.head_count", i32s(3, 4), "head_count has 3 elements"),
      key(q + "rope.dimension_sections", i32s(3), "has 3 elements; 4"),
      key(q + "rope.dimension_sections", i32(4), ""),
      key(q + "rope.dimension_sections", array(ValueType::kInt32, std::vector{17, 0, 0, 0}),
          "at most 16, the size of a head"),
      key(q + "rope.dimension_sections", array(ValueType::kInt32, std::vector{0, 0, 0, 2}),
          "[0, 0, 0, 2]"),
      // all blocks are made from the numbers of block 0
      key(q + "attention.head_count", array(ValueType::kInt32, std::vector{4, 8}), ""),
      key(q + "attention.head_count", array(ValueType::kInt32, std::vector{0, 4}),
          "head_count is 0 in block 0"),
      without(q + "attention.head_count", "head_count is missing"),
      key(q + "attention.head_count_kv", array(ValueType::kInt32, std::vector{2, 2}), ""),
      key(q + "attention.head_count_kv", array(ValueType::kInt32, std::vector{0, 2}),
          "head_count_kv is 2 in block 1, and 0 in block 0"),
      key(q + "attention.head_count_kv", array(ValueType::kInt32, std::vector{2, 0}),
          "head_count_kv is 0 in block 1, and 2 in block 0"),
      key(q + "feed_forward_length", array(ValueType::kInt32, std::vector{96, 0}), ""),
      key(q + "rope.dimension_sections", array(ValueType::kFloat32, std::vector<float>{4, 2, 2, 0}),
          "array of f32"),
      key(q + "attention.recurrent_layers",
          array(ValueType::kBool, std::vector<std::uint8_t>{1, 0}), ""),
      key(q + "attention.recurrent_layers", array(ValueType::kBool, std::vector<std::uint8_t>{1}),
          "recurrent_layers has 1 elements"),
      // the vocabulary
      without(t + "model", "tokenizer.ggml.model is missing"),
      without(t + "tokens", "tokenizer.ggml.tokens is missing"),
      without(t + "merges", "tokenizer.ggml.merges is missing"),
      without(t + "pre", ""),
      without(t + "token_type", ""),
      key(t + "tokens", i32s(model::kTinyVocab), "an array of i32"),
      key(t + "merges", i32s(2), "tokenizer.ggml.merges is an array of i32"),
      key(t + "token_type",
          array(ValueType::kUint32, std::vector<std::uint32_t>(model::kTinyVocab, 1)),
          "an array of u32"),
      key(t + "token_type", i32s(model::kTinyVocab - 1), "319 elements for 320 tokens"),
      key(t + "token_type", i32s(model::kTinyVocab + 1), ""),
      key(t + "scores", i32s(model::kTinyVocab), ""),
      key(t + "scores", array(ValueType::kFloat64, std::vector<double>(model::kTinyVocab)),
          "tokenizer.ggml.scores"),
      key(t + "scores", array(ValueType::kFloat32, std::vector<float>(3)), "3 elements"),
      key(t + "eos_token_id", i32(256), "eos_token_id"),
      key(t + "eos_token_id", Value::of_u32(99999), ""),
      key(t + "add_bos_token", u8(0), "add_bos_token"),
      key(t + "normalizer.nfc", u8(0), "normalizer.nfc"),
      key(t + "suppress_tokens", Value::of_u32(0), "suppress_tokens"),
      vocabulary([](auto& words) { words[300] = words[301]; }, "tokens 300 and 301"),
      vocabulary([](auto& words) { words[300] = words[301] = ""; }, ""),
      vocabulary([](auto& words) { words[300] = "\xff\xfe"; }, ""),
      vocabulary([](auto& words) { words[300] = words[301] + std::string("\0x", 2); },
                 "are the same"),
      vocabulary([](auto& words) { words.pop_back(); }, "320 rows for a vocabulary of 319"),
      // tensors
      tensor("output_norm.weight", {}, "output_norm.weight is missing"),
      tensor("blk.1.attn_k.weight", {}, "blk.1.attn_k.weight is missing"),
      tensor("output_norm.weight", {63}, "output_norm.weight has shape [63]"),
      tensor("output_norm.weight", {1, 64}, "output_norm.weight has shape [1, 64]"),
      tensor("blk.0.ffn_up.weight", {96, 64},
             "blk.0.ffn_up.weight has shape [96, 64]; the "
             "hyper-parameters ask for [64, 96]"),
      tensor("token_embd.weight", {64, 321}, "321 rows"),
      tensor("output.weight", {64, 319}, "output.weight has shape [64, 319]"),
      tensor("output.weight", {64, 320}, ""),
      tensor("blk.1.attn_q.bias", {128}, ""),
  };
  return list;
}

/// The same of the dense architectures.
std::vector<std::pair<std::string, Variant>> dense_variants() {
  std::vector<std::pair<std::string, Variant>> list;
  for (const std::string a : {"llama", "qwen2", "qwen3"}) {
    const auto add = [&](Variant variant) { list.emplace_back(a, std::move(variant)); };
    const std::string k = a + ".", b = "blk.1.";
    const bool llama = a == "llama";
    add({"", [](Metadata&, Tensors&) {}});
    add(key(k + "nextn_predict_layers", i32(0), "nextn_predict_layers"));
    add(key(k + "vocab_size", Value::of_u64(5), llama ? "vocab_size" : ""));
    add(key(k + "attention.head_count", Value::of_u32(8), "attn_k.weight has shape"));
    add(key(k + "attention.head_count_kv", Value::of_u32(4), "attn_k.weight has shape"));
    add(without(k + "attention.head_count_kv", "attn_k.weight has shape"));
    add(without(k + "attention.layer_norm_rms_epsilon", "layer_norm_rms_epsilon is missing"));
    add(key(k + "rope.dimension_count", Value::of_u32(8), "heads have 16"));
    add(key(k + "feed_forward_length", i32s(2, 96), ""));
    add(key(k + "attention.head_count_kv", array(ValueType::kInt32, std::vector{2, 1}),
            "head_count_kv is 1 in block 1, and 2 in block 0"));
    add(key(k + "block_count", Value::of_u32(1), "lies behind the last block"));
    add(tensor("output_norm.weight", {}, "output_norm.weight is missing"));
    add(tensor("output.weight", {64, 320}, ""));
    add(tensor("output.bias", {7}, a == "qwen2" ? "output.bias has shape" : "not known"));
    add(tensor("rope_freqs.weight", {8}, llama ? "" : "not known"));
    add(tensor("rope_freqs.weight", {7}, llama ? "rope_freqs.weight has shape" : "not known"));
    add(tensor(b + "attn_q.bias", {64}, ""));
    add(tensor(b + "attn_q.bias", {63}, b + "attn_q.bias has shape"));
    add(tensor(b + "attn_q_norm.weight", {}, a == "qwen3" ? "attn_q_norm.weight is missing" : ""));
    add(tensor(b + "attn_output.bias", {64}, llama ? "" : "not known"));
    add(tensor(b + "ffn_up.bias", {96}, llama ? "" : "not known"));
    add(tensor(b + "ffn_norm.weight", {}, b + "ffn_norm.weight is missing"));
    add(tensor(b + "ffn_down.weight", {64, 96}, b + "ffn_down.weight has shape"));
    add(tensor("v.patch.weight", {64, 4}, "not known"));
  }
  return list;
}

class LoadableTest : public test::FolderTest {
 protected:
  std::string write(const std::string& architecture, const Variant& variant) {
    model::TinyDenseOptions options;
    options.architecture = architecture;
    options.hidden = 64;
    options.feed_forward = 96;
    options.head_size = 16;
    options.edit = variant.edit;
    return model::write_tiny_dense(path("m.gguf"), options);
  }
  std::string write(const Variant& variant) {
    model::TinyOptions options;
    options.hidden = 64;
    options.feed_forward = 96;
    options.head_size = 16;
    options.edit = variant.edit;
    return model::write_tiny_qwen35(path("m.gguf"), options);
  }
};

TEST_F(LoadableTest, NamesWhatLlamaCppRefusesAndNothingElse) {
  int index = 0;
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(fmt::format("variant {}: {}", index++, variant.problem));
    const File file = File::open(write(variant));
    const auto problems = find_load_problems(file);
    if (variant.problem.empty()) {
      EXPECT_TRUE(problems.empty()) << problems.front().problem;
      continue;
    }
    ASSERT_FALSE(problems.empty());
    EXPECT_THAT(problems.front().problem, HasSubstr(variant.problem));
    const Error error = test::error_of([&] { require_loadable(file); });
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.place(), HasSubstr("m.gguf"));
    EXPECT_FALSE(error.fix().empty());
  }
}

TEST_F(LoadableTest, KnowsTheTensorsOfDenseArchitectures) {
  int index = 0;
  for (const auto& [architecture, variant] : dense_variants()) {
    SCOPED_TRACE(fmt::format("{} {}: {}", architecture, index++, variant.problem));
    const File file = File::open(write(architecture, variant));
    const auto problems = find_load_problems(file);
    if (variant.problem == "not known" || variant.problem.empty()) {
      EXPECT_TRUE(problems.empty()) << problems.front().problem;
      EXPECT_EQ(find_foreign_tensors(file).size(), variant.problem.empty() ? 0u : 1u);
      continue;
    }
    ASSERT_FALSE(problems.empty());
    EXPECT_THAT(problems.front().problem, HasSubstr(variant.problem));
  }
}

TEST_F(LoadableTest, SaysHowManyMoreProblemsThereAre) {
  const Variant variant{"", [](Metadata& m, Tensors&) {
                          m.set("general.name", Value::of_u32(1));
                          m.set("qwen35.context_length", Value::of_u64(1));
                          m.erase("tokenizer.ggml.model");
                        }};
  const File file = File::open(write(variant));
  EXPECT_THAT(test::error_of([&] { require_loadable(file); }).problem(),
              HasSubstr("and 2 more such problems"));
}

TEST_F(LoadableTest, KnowsTheBlocksThatPredictFurtherTokens) {
  Variant variant{
      "", [](Metadata& m, Tensors& tensors) {
        m.set("qwen35.block_count", Value::of_u32(3));
        m.set("qwen35.nextn_predict_layers", Value::of_u32(1));
        for (std::size_t i = 0, n = tensors.size(); i < n; ++i) {
          TinyTensor copy = tensors[i];
          if (!copy.name.starts_with("blk.1.")) continue;
          copy.name = "blk.2." + copy.name.substr(6);
          tensors.push_back(copy);
        }
        tensors.push_back({"blk.2.nextn.eh_proj.weight", {128, 64}, std::vector<float>(8192)});
        for (const char* part : {"enorm", "hnorm"})
          tensors.push_back(
              {fmt::format("blk.2.nextn.{}.weight", part), {64}, std::vector<float>(64, 1)});
      }};
  const File file = File::open(write(variant));
  EXPECT_TRUE(find_load_problems(file).empty()) << find_load_problems(file).front().problem;
  EXPECT_TRUE(find_foreign_tensors(file).empty());
}

TEST_F(LoadableTest, ForeignTensorsAreNamedApart) {
  const Variant variant = tensor("v.blk.0.attn_q.weight", {64, 4}, "");
  const File file = File::open(write(variant));
  EXPECT_TRUE(find_load_problems(file).empty());
  EXPECT_THAT(find_foreign_tensors(file), testing::ElementsAre("v.blk.0.attn_q.weight"));
  EXPECT_THAT(load_refusals(file),
              testing::ElementsAre("1 tensor is unknown to it, first v.blk.0.attn_q.weight"));
  EXPECT_TRUE(
      find_foreign_tensors(File::open(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf")).empty());
}

class SlowStockLoadable : public LoadableTest {};

TEST_F(SlowStockLoadable, LlamaCppSaysTheSame) {
  const std::string tool = spectralquant::test::find_tool("llama-simple");
  if (tool.empty()) GTEST_SKIP() << "llama-simple not found: put it on PATH or set LLAMA_CPP_BIN";
  const auto expect_same = [&](const std::string& file, const std::string& problem) {
    const int status =
        std::system(fmt::format("OMP_WAIT_POLICY=passive '{}' -m '{}' -n 1 a > '{}' 2>&1", tool,
                                file, path("log"))
                        .c_str());
    EXPECT_EQ(status == 0, problem.empty()) << slurp(path("log"));
  };
  int index = 0;
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(fmt::format("variant {}: {}", index++, variant.problem));
    expect_same(write(variant), variant.problem);
  }
  for (const auto& [architecture, variant] : dense_variants()) {
    SCOPED_TRACE(fmt::format("{} {}: {}", architecture, index++, variant.problem));
    expect_same(write(architecture, variant), variant.problem);
  }
}

}  // namespace
}  // namespace spectralquant::gguf
