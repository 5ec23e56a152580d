#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/quantize/plan.h"

namespace spectralquant::quantize {
namespace {

using gguf::Type;

struct TestTensor {
  std::string name;
  Type type;
  std::vector<std::uint64_t> shape;
};

/// A GGUF file of zeros with the given tensors, removed at the end.
class TestFile {
 public:
  explicit TestFile(const std::vector<TestTensor>& tensors)
      : path_(testing::TempDir() + "plan_" + name_of_test() + ".gguf") {
    std::string header = "GGUF";
    auto put = [&](auto value) {
      header.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    auto put_string = [&](const std::string& text) {
      put(std::uint64_t{text.size()}), header += text;
    };
    put(std::uint32_t{3}), put(std::uint64_t{tensors.size()}), put(std::uint64_t{1});
    put_string("general.architecture"), put(std::uint32_t{8}), put_string("qwen35");
    std::uint64_t offset = 0;
    for (const TestTensor& tensor : tensors) {
      put_string(tensor.name), put(static_cast<std::uint32_t>(tensor.shape.size()));
      std::uint64_t n_values = 1;
      for (std::uint64_t n : tensor.shape) put(n), n_values *= n;
      put(static_cast<std::uint32_t>(tensor.type)), put(offset);
      const gguf::TypeTraits& layout = gguf::traits(tensor.type);
      offset += (n_values / layout.block_values * layout.block_bytes + 31) / 32 * 32;
    }
    header.resize((header.size() + 31) / 32 * 32);
    std::ofstream(path_, std::ios::binary) << header << std::string(offset, '\0');
  }
  ~TestFile() { std::filesystem::remove(path_); }
  TestFile(const TestFile&) = delete;

  Plan plan(const PlanOptions& options = {}) {
    file_.emplace(gguf::File::open(path_));
    return make_plan(*file_, options);
  }
  Error refusal(const PlanOptions& options = {}) {
    try {
      plan(options);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "nothing was refused";
    return bad_input("");
  }

 private:
  static std::string name_of_test() {
    return testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  std::string path_;
  std::optional<gguf::File> file_;
};

TEST(PlanTest, MatricesBecomeQ4KAndTheRestF32) {
  const Plan plan = TestFile({{"token_embd.weight", Type::BF16, {256, 64}},
                              {"blk.0.attn_norm.weight", Type::F32, {256}},
                              {"blk.0.ffn_norm.weight", Type::F16, {256}},
                              {"blk.0.ssm_conv1d.weight", Type::BF16, {4, 512}},
                              {"blk.0.ffn_down_exps.weight", Type::F16, {512, 256, 4}},
                              {"blk.0.attn_q.bias", Type::F32, {256}},
                              {"rope_table", Type::I32, {16}}})
                        .plan();
  ASSERT_EQ(plan.tensors.size(), 7u);
  const std::pair<Action, Type> expected[] = {
      {Action::kSolve, Type::Q4_K}, {Action::kCopy, Type::F32},   {Action::kToF32, Type::F32},
      {Action::kToF32, Type::F32},  {Action::kSolve, Type::Q4_K}, {Action::kCopy, Type::F32},
      {Action::kCopy, Type::I32}};
  for (std::size_t i = 0; i < 7; ++i)
    EXPECT_EQ(std::pair(plan.tensors[i].action, plan.tensors[i].type), expected[i]) << i;
  const std::uint64_t matrix_values = 256 * 64 + 512 * 256 * 4,
                      other_values = 256 + 256 + 4 * 512 + 256 + 16;
  EXPECT_EQ(plan.output_bytes, matrix_values / 256 * 144 + other_values * 4);
  EXPECT_EQ(plan.matrix_bpw, 4.5);
  EXPECT_DOUBLE_EQ(plan.file_bpw, 8.0 * plan.output_bytes / (matrix_values + other_values));
  EXPECT_EQ(plan.largest_cols, 512);
}

TEST(PlanTest, PlansTheEmbeddedModelStrictly) {
  const auto file = gguf::File::open(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf");
  const Plan plan = make_plan(file);
  EXPECT_EQ(std::count_if(plan.tensors.begin(), plan.tensors.end(),
                          [](auto& t) { return t.action == Action::kSolve; }),
            32);
  EXPECT_EQ(plan.matrix_bpw, 4.5);
  EXPECT_NEAR(plan.file_bpw, 4.57, 0.005);  // what llama-quantize --pure prints for it
}

const std::vector<TestTensor> kOddColumns{{"token_embd.weight", Type::BF16, {256, 64}},
                                          {"blk.0.ffn_down.weight", Type::BF16, {288, 8}},
                                          {"blk.1.ffn_down.weight", Type::BF16, {288, 8}}};

TEST(PlanTest, NamesAMatrixThatCannotBeQ4K) {
  const Error error = TestFile(kOddColumns).refusal();
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_EQ(error.problem(),
            "blk.0.ffn_down.weight has 288 columns; Q4_K needs a multiple of 256; 1 more of the "
            "matrices cannot be Q4_K either");
  EXPECT_NE(error.place().find("tensor 2 of 3"), std::string::npos);
  EXPECT_EQ(error.fix(), "allow another type for such matrices, e.g. --fallback q8_0");
}

TEST(PlanTest, UsesTheFallbackWhereQ4KCannotBe) {
  const Plan plan = TestFile(kOddColumns).plan({Type::Q8_0});
  EXPECT_EQ(plan.tensors[0].type, Type::Q4_K);
  EXPECT_EQ(plan.tensors[1].action, Action::kFallback);
  EXPECT_EQ(plan.tensors[1].type, Type::Q8_0);
  EXPECT_EQ(plan.largest_cols, 256);
  EXPECT_GT(plan.matrix_bpw, 4.5);
}

TEST(PlanTest, RefusesAFallbackThatDoesNotFitEither) {
  const std::vector<TestTensor> tensors{{"token_embd.weight", Type::BF16, {100, 64}}};
  const Error error = TestFile(tensors).refusal({Type::Q8_0});
  EXPECT_EQ(error.problem(),
            "token_embd.weight has 100 columns; Q4_K needs a multiple of 256, the fallback Q8_0 "
            "one of 32");
  EXPECT_EQ(error.fix(), "allow another type for such matrices, e.g. --fallback bf16");
  EXPECT_EQ(TestFile(tensors).plan({Type::BF16}).tensors[0].type, Type::BF16);
}

TEST(PlanTest, PlansAnyFormat) {
  PlanOptions options;
  for (const auto& [type, bits] : {std::pair{Type::Q5_K, 5.5}, {Type::Q6_K, 6.5625}}) {
    options.type = type;
    const Plan plan = TestFile({{"token_embd.weight", Type::BF16, {256, 64}}}).plan(options);
    EXPECT_EQ(plan.tensors[0].type, type);
    EXPECT_EQ(plan.matrix_bpw, bits);
  }
  EXPECT_EQ(TestFile(kOddColumns).refusal(options).problem(),
            "blk.0.ffn_down.weight has 288 columns; Q6_K needs a multiple of 256; 1 more of the "
            "matrices cannot be Q6_K either");
  options.type = Type::IQ1_S;
  EXPECT_EQ(TestFile(kOddColumns).refusal(options).code(), ErrorCode::kBadUsage);
}

TEST(PlanTest, RefusesOtherFallbackTypes) {
  EXPECT_EQ(TestFile(kOddColumns).refusal({Type::Q5_0}).code(), ErrorCode::kBadUsage);
}

TEST(PlanTest, RefusesAQuantizedModel) {
  const Error error = TestFile({{"token_embd.weight", Type::BF16, {256, 64}},
                                {"output.weight", Type::Q6_K, {256, 64}}})
                          .refusal();
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_NE(error.problem().find("is quantized already: output.weight is Q6_K"), std::string::npos);
  EXPECT_EQ(error.fix(), "give the BF16, F16 or F32 original");
}

TEST(PlanTest, RefusesMatricesThatAreNotFloatingPoint) {
  const Error error = TestFile({{"token_embd.weight", Type::I8, {256, 64}}}).refusal();
  EXPECT_NE(error.problem().find("token_embd.weight is I8"), std::string::npos);
}

TEST(PlanTest, RefusesAFileWithoutMatrices) {
  const Error error = TestFile({{"blk.0.attn_norm.weight", Type::F32, {256}}}).refusal();
  EXPECT_NE(error.problem().find("has no matrix to quantize"), std::string::npos);
  EXPECT_NE(error.place().find("qwen35"), std::string::npos);
}

}  // namespace
}  // namespace spectralquant::quantize
