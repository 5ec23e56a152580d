#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "model/tiny_model.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/model.h"

namespace spectralquant::model {
namespace {

using ::testing::HasSubstr;

std::string path() {
  return ::testing::TempDir() + "/sq_architecture_" + std::to_string(::getpid()) + ".gguf";
}

/// Shapes are all that matters here, so they are small.
TinyOptions small_options() {
  TinyOptions options;
  options.hidden = options.feed_forward = 32;
  options.head_size = options.state_size = 16;
  options.rope_dims = 8;
  return options;
}

/// What make_architecture() says of a tiny model after `edit`; "" if nothing.
std::string refusal(std::function<void(gguf::Metadata&, std::vector<TinyTensor>&)> edit) {
  TinyOptions options = small_options();
  options.edit = std::move(edit);
  const auto file = gguf::File::open(write_tiny_qwen35(path(), options));
  try {
    make_architecture(file);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "";
}

std::string refusal_of(const char* key, gguf::Value value) {
  return refusal([&](gguf::Metadata& m, std::vector<TinyTensor>&) { m.set(key, value); });
}

class ArchitectureTest : public ::testing::Test {
 protected:
  void TearDown() override { std::remove(path().c_str()); }
};

TEST_F(ArchitectureTest, NamesTheSupportedOnesWhenAnotherIsAsked) {
  const auto text = refusal_of("general.architecture", gguf::Value::of_string("gpt9"));
  EXPECT_THAT(text, HasSubstr("architecture gpt9 is not supported"));
  EXPECT_THAT(text, HasSubstr("supported: qwen35"));
  EXPECT_THAT(
      refusal([](gguf::Metadata& m, std::vector<TinyTensor>&) { m.erase("general.architecture"); }),
      HasSubstr("names no architecture"));
}

TEST_F(ArchitectureTest, EveryHyperParameterIsRequiredAndNamed) {
  for (const char* key :
       {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base",
        "rope.dimension_count", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size",
        "ssm.time_step_rank", "ssm.group_count"}) {
    const std::string full = std::string("qwen35.") + key;
    EXPECT_THAT(refusal([&](gguf::Metadata& m, std::vector<TinyTensor>&) { m.erase(full); }),
                HasSubstr(full));
    EXPECT_THAT(refusal_of(full.c_str(), gguf::Value::of_string("many")), HasSubstr(full));
    EXPECT_THAT(refusal_of(full.c_str(), gguf::Value::of_u32(0)), HasSubstr(full)) << "zero";
  }
}

TEST_F(ArchitectureTest, HyperParametersMustAgree) {
  const auto u32 = [](std::uint32_t v) { return gguf::Value::of_u32(v); };
  EXPECT_THAT(refusal_of("qwen35.attention.head_count_kv", u32(3)),
              HasSubstr("attention.head_count is 4, not a multiple of head_count_kv = 3"));
  EXPECT_THAT(refusal_of("qwen35.attention.value_length", u32(32)),
              HasSubstr("attention.value_length is 32"));
  EXPECT_THAT(refusal_of("qwen35.rope.dimension_count", u32(15)),
              HasSubstr("rope.dimension_count is 15"));
  EXPECT_THAT(refusal_of("qwen35.rope.dimension_count", u32(128)),
              HasSubstr("rope.dimension_count is 128"));
  EXPECT_THAT(refusal_of("qwen35.rope.scaling.type", gguf::Value::of_string("yarn")),
              HasSubstr("rope.scaling.type"));
  EXPECT_EQ(refusal_of("qwen35.rope.scaling.type", gguf::Value::of_string("none")), "");
  EXPECT_THAT(refusal_of("qwen35.ssm.inner_size", u32(512)),
              HasSubstr("ssm.inner_size is 512, but 4 value heads of 16 make 64"));
  EXPECT_THAT(refusal_of("qwen35.ssm.group_count", u32(3)), HasSubstr("ssm.time_step_rank is 4"));
  EXPECT_THAT(refusal_of("qwen35.full_attention_interval", u32(0)),
              HasSubstr("full_attention_interval"));
  EXPECT_THAT(refusal_of("qwen35.nextn_predict_layers", u32(2)),
              HasSubstr("nextn_predict_layers is 2"));
  EXPECT_THAT(refusal_of("qwen35.attention.recurrent_layers", tiny::of_i32s({1})),
              HasSubstr("attention.recurrent_layers"));
}

TEST_F(ArchitectureTest, EveryTensorIsRequiredAndItsShapeChecked) {
  for (const auto& tensor : tiny::make_tensors(small_options())) {
    const auto drop = [&](gguf::Metadata&, std::vector<TinyTensor>& all) {
      std::erase_if(all, [&](auto& t) { return t.name == tensor.name; });
    };
    EXPECT_THAT(refusal(drop), HasSubstr(tensor.name));
    const auto shorten = [&](gguf::Metadata&, std::vector<TinyTensor>& all) {
      for (auto& t : all) {
        if (t.name != tensor.name) continue;
        t.shape[0] -= 1;
        t.values.resize(t.values.size() / tensor.shape[0] * t.shape[0]);
      }
    };
    EXPECT_THAT(refusal(shorten), HasSubstr(tensor.name + " has shape"));
  }
}

TEST_F(ArchitectureTest, StagesAndHeadAreKnown) {
  TinyOptions options = small_options();
  options.tied = false;
  const auto file = gguf::File::open(write_tiny_qwen35(path(), options));
  const auto architecture = make_architecture(file);
  EXPECT_EQ(architecture->n_blocks(), 2);
  EXPECT_EQ(architecture->vocab_size(), kTinyVocab);
  EXPECT_EQ(architecture->hidden_size(), 32);
  EXPECT_FALSE(architecture->tied());
  EXPECT_EQ(architecture->head_name(), "output.weight");
  EXPECT_EQ(architecture->stages(0)[0][0], "blk.0.attn_qkv.weight");
  EXPECT_EQ(architecture->stages(1)[0],
            (std::vector<std::string>{"blk.1.attn_q.weight", "blk.1.attn_k.weight",
                                      "blk.1.attn_v.weight"}));
}

TEST_F(ArchitectureTest, BlocksThatPredictFurtherTokensAreLeftOut) {
  TinyOptions options = small_options();
  options.n_blocks = 3;
  options.edit = [](gguf::Metadata& m, std::vector<TinyTensor>&) {
    m.set("qwen35.nextn_predict_layers", gguf::Value::of_u32(1));
  };
  const auto file = gguf::File::open(write_tiny_qwen35(path(), options));
  EXPECT_EQ(make_architecture(file)->n_blocks(), 2);
}

}  // namespace
}  // namespace spectralquant::model
