#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "model/tiny_model.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/architecture.h"
#include "spectralquant/model/rope.h"

namespace spectralquant::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

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
  EXPECT_THAT(text, HasSubstr("supported: llama, qwen2, qwen3, qwen3moe, qwen35"));
  EXPECT_THAT(
      refusal([](gguf::Metadata& m, std::vector<TinyTensor>&) { m.erase("general.architecture"); }),
      HasSubstr("names no architecture"));
}

TEST_F(ArchitectureTest, EveryHyperParameterIsRequiredAndNamed) {
  for (const char* key :
       {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
        "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank",
        "ssm.group_count", "attention.layer_norm_rms_epsilon", "rope.dimension_sections"}) {
    const std::string full = std::string("qwen35.") + key;
    EXPECT_THAT(refusal([&](gguf::Metadata& m, std::vector<TinyTensor>&) { m.erase(full); }),
                HasSubstr(full));
    EXPECT_THAT(refusal_of(full.c_str(), gguf::Value::of_string("many")), HasSubstr(full));
    EXPECT_THAT(refusal_of(full.c_str(), gguf::Value::of_f32(-1)), HasSubstr(full)) << "below 0";
  }
}

// A key that is left out means to us what it means to llama.cpp.
TEST_F(ArchitectureTest, KeysHaveLlamaCppsDefaults) {
  // 32 / 4 = 8 dimensions a head, of which all turn
  const auto plain = [](gguf::Metadata& m, std::vector<TinyTensor>&) {
    for (const char* key :
         {"attention.head_count_kv", "attention.key_length", "attention.value_length",
          "rope.dimension_count", "rope.freq_base", "full_attention_interval"})
      m.erase(std::string("qwen35.") + key);
  };
  TinyOptions options = small_options();
  options.n_kv_heads = 4;
  options.head_size = 8;
  options.n_blocks = 5;
  options.full_attention_interval = 4;
  options.edit = plain;
  const auto file = gguf::File::open(write_tiny_qwen35(path(), options));
  const auto architecture = make_architecture(file);
  EXPECT_EQ(architecture->parts(3)[0].stages[0][0][0], "blk.3.attn_q.weight");
  EXPECT_EQ(architecture->cache_values(), 2 * 4 * 8);
  const HyperParameters get(file);
  EXPECT_EQ(read_rope(get, 8).n_dims, 8);
  EXPECT_EQ(read_rope(get, 8).base, 10000);
  // one key length for all, and values of n_embd / n_head
  EXPECT_THAT(refusal([](gguf::Metadata& m, std::vector<TinyTensor>&) {
                m.erase("qwen35.attention.value_length");
              }),
              HasSubstr("attention.value_length is missing, but keys have 16 dimensions"));
}

TEST_F(ArchitectureTest, CountsMayBeGivenBlockByBlock) {
  EXPECT_EQ(refusal_of("qwen35.feed_forward_length", tiny::of_i32s({32, 32})), "");
  EXPECT_EQ(refusal_of("qwen35.attention.head_count_kv", tiny::of_i32s({2, 2})), "");
  const auto text = refusal_of("qwen35.feed_forward_length", tiny::of_i32s({32, 64}));
  EXPECT_THAT(text,
              HasSubstr("feed_forward_length is [32, 64], which differs from block to block"));
  EXPECT_THAT(text, Not(HasSubstr("damaged")));
}

TEST_F(ArchitectureTest, WhatLlamaCppRunsAndWeDoNotIsSaidSo) {
  EXPECT_THAT(refusal_of("qwen35.attention.causal", gguf::Value::of_bool(false)),
              AllOf(HasSubstr("attention.causal"), HasSubstr("this program cannot run"),
                    HasSubstr("--method plain")));
  EXPECT_THAT(refusal([](gguf::Metadata&, std::vector<TinyTensor>& tensors) {
                tensors.push_back({"blk.1.attn_q.scale", {1}, {2.0f}});
              }),
              AllOf(HasSubstr("blk.1.attn_q.scale"), HasSubstr("this program cannot run")));
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
  EXPECT_EQ(refusal_of("qwen35.rope.dimension_sections", u32(2)), "");
  EXPECT_THAT(refusal_of("qwen35.rope.dimension_sections", tiny::of_i32s({1, 2, 3})),
              HasSubstr("rope.dimension_sections"));
  EXPECT_THAT(refusal_of("qwen35.rope.dimension_sections", tiny::of_i32s({0, 0, 0, 4})),
              HasSubstr("rope.dimension_sections"));
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
  EXPECT_EQ(architecture->parts(0)[0].stages[0][0][0], "blk.0.attn_qkv.weight");
  EXPECT_EQ(architecture->parts(1)[0].stages[0],
            (Stage{Readers{"blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight"}}));
  for (const Part& part : architecture->parts(1)) {
    EXPECT_TRUE(part.adds_last_product);
    EXPECT_EQ(part.stages.back().size(), 1u);
  }
  EXPECT_EQ(multiplied_weights(*architecture).size(), 8u + 7u + 1u);
}

TEST(TensorNamesTest, BelongToBlocks) {
  EXPECT_EQ(block_of("blk.12.ffn_up.weight"), 12);
  EXPECT_EQ(block_of("token_embd.weight"), -1);
  EXPECT_EQ(block_of("v.blk.0.attn_q.weight"), -1);
  EXPECT_EQ(block_prefix(12), "blk.12.");
}

TEST_F(ArchitectureTest, ABlockThatDraftsFollowsTheOthers) {
  TinyOptions options = small_options();
  options.draft = true;
  const auto file = gguf::File::open(write_tiny_qwen35(path(), options));
  const auto architecture = make_architecture(file);
  EXPECT_EQ(architecture->n_blocks(), 2);
  ASSERT_EQ(architecture->n_draft_blocks(), 1);
  const auto parts = architecture->parts(2);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].stages, (std::vector<Stage>{Stage{Readers{"blk.2.nextn.eh_proj.weight"}}}));
  EXPECT_FALSE(parts[0].adds_last_product);
  EXPECT_EQ(parts[1].stages[1], Stage{Readers{"blk.2.attn_output.weight"}});
  const auto multiplied = multiplied_weights(*architecture);
  EXPECT_EQ(std::count(multiplied.begin(), multiplied.end(), "blk.2.ffn_up.weight"), 0);
  EXPECT_TRUE(gathered_weights(*architecture).contains("blk.2.ffn_up.weight"));
}

// llama.cpp runs one such block; what it does not run needs no signal.
TEST_F(ArchitectureTest, ADraftBlockThatIsNotWholeIsNeverRun) {
  TinyOptions options = small_options();
  options.draft = true;
  options.edit = [](gguf::Metadata&, std::vector<TinyTensor>& tensors) {
    std::erase_if(tensors, [](auto& t) { return t.name == "blk.2.nextn.eh_proj.weight"; });
  };
  const auto file = gguf::File::open(write_tiny_qwen35(path(), options));
  EXPECT_EQ(make_architecture(file)->n_blocks(), 2);
  EXPECT_EQ(make_architecture(file)->n_draft_blocks(), 0);
}

}  // namespace
}  // namespace spectralquant::model
