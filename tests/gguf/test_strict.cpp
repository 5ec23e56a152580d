#include <gtest/gtest.h>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/strict.h"

namespace spectralquant::gguf {
namespace {

bool is_matrix(const std::string& name, std::array<std::uint64_t, 4> shape = {256, 256, 1, 1}) {
  Tensor tensor;
  tensor.name = name;
  tensor.n_dims = 4;
  tensor.shape = shape;
  return is_matrix_to_quantize("llama", tensor);
}

TEST(Strict, MatricesAreQuantized) {
  for (const char* name :
       {"token_embd.weight", "output.weight", "blk.0.attn_q.weight", "blk.10.ffn_gate_exps.weight",
        "blk.3.ffn_gate_shexp.weight", "blk.0.ssm_alpha.weight", "blk.0.attn_kv_a_mqa.weight",
        "per_layer_token_embd.weight", "blk.0.attn_qkv.weight"})
    EXPECT_TRUE(is_matrix(name)) << name;
  EXPECT_TRUE(is_matrix("blk.0.ffn_up_exps.weight", {256, 512, 8, 1}));
}

TEST(Strict, TheRestIsKept) {
  for (const char* name :
       {"blk.0.attn_norm.weight", "blk.0.ssm_a", "blk.0.ssm_dt.bias", "blk.0.ffn_gate_inp.weight",
        "blk.0.ssm_conv1d.weight", "blk.0.shortconv.conv.weight", "position_embd.weight",
        "token_types.weight", "blk.0.time_mix_w1.weight", "per_layer_model_proj.weight",
        "altup_proj.weight", "blk.0.laurel_l.weight", "enc.blk.0.attn_rel_b.weight",
        "v.patch_embd.weight", "v.position_embd.weight", "blk.0.ffn_gate_tid2eid.weight",
        "blk.0.indexer.k_proj.weight", "weight_scale"})
    EXPECT_FALSE(is_matrix(name)) << name;
  EXPECT_FALSE(is_matrix("blk.0.attn_q.weight", {256, 1, 1, 1}));  // ggml counts one dimension
  EXPECT_TRUE(is_matrix("blk.0.attn_q.weight", {256, 1, 2, 1}));
}

class StrictTest : public test::FolderTest {};

TEST_F(StrictTest, TakesStock) {
  test::HandMade made;
  made.tensor("output.weight", {256, 4}, 12, 0)
      .tensor("blk.0.attn_q.weight", {256, 2}, 0, 576)
      .tensor("blk.0.ssm_conv1d.weight", {4, 8}, 0, 2624);
  made.data = std::string(2752, '\0');
  const Inventory inventory = take_inventory(File::open(put("m.gguf", made.bytes())));
  EXPECT_FALSE(inventory.strict);
  EXPECT_EQ(inventory.violations, std::vector<std::string>{"blk.0.attn_q.weight is F32, not Q4_K"});
  EXPECT_EQ(inventory.kept, std::vector<std::string>{"blk.0.ssm_conv1d.weight F32 [4, 8]"});
  EXPECT_EQ(inventory.types.at(Type::F32).n_tensors, 2u);
  EXPECT_EQ(inventory.types.at(Type::F32).size_bytes, 2176u);
  EXPECT_EQ(inventory.n_values, 1024u + 512u + 32u);
  EXPECT_EQ(inventory.n_matrix_values, 1536u);
  EXPECT_EQ(inventory.matrix_bytes, 2624u);
  EXPECT_DOUBLE_EQ(inventory.file_bpw, 8.0 * 2752 / 1568);
  EXPECT_DOUBLE_EQ(inventory.matrix_bpw, 8.0 * 2624 / 1536);
}

TEST_F(StrictTest, AStrictFileHas4Point5Bits) {
  test::HandMade made;
  made.tensor("output.weight", {256, 4}, 12, 0);
  made.data = std::string(576, '\0');
  const Inventory inventory = take_inventory(File::open(put("m.gguf", made.bytes())));
  EXPECT_TRUE(inventory.strict);
  EXPECT_DOUBLE_EQ(inventory.matrix_bpw, 4.5);
  EXPECT_EQ(inventory.matrix_type, Type::Q4_K);
  EXPECT_FALSE(take_inventory(File::open(put("empty.gguf", test::HandMade().bytes()))).strict);
}

TEST_F(StrictTest, TheTypeIsThatOfMostWeights) {
  test::HandMade made;
  made.tensor("output.weight", {256, 4}, 13, 0).tensor("blk.0.attn_q.weight", {256, 2}, 12, 704);
  made.data = std::string(992, '\0');
  const Inventory mixed = take_inventory(File::open(put("mixed.gguf", made.bytes())));
  EXPECT_EQ(mixed.matrix_type, Type::Q5_K);
  EXPECT_FALSE(mixed.strict);
  EXPECT_EQ(mixed.violations, std::vector<std::string>{"blk.0.attn_q.weight is Q4_K, not Q5_K"});
  test::HandMade pure;
  pure.tensor("output.weight", {256, 4}, 14, 0);
  pure.data = std::string(864, '\0');
  const Inventory strict = take_inventory(File::open(put("pure.gguf", pure.bytes())));
  EXPECT_EQ(strict.matrix_type, Type::Q6_K);
  EXPECT_TRUE(strict.strict);
  test::HandMade original;
  original.tensor("output.weight", {256, 1}, 0, 0);
  original.data = std::string(1024, '\0');
  EXPECT_FALSE(take_inventory(File::open(put("original.gguf", original.bytes()))).strict);
}

}  // namespace
}  // namespace spectralquant::gguf
