// Every value that is written is finite, what is written loads, and what looks wrong is said.
#include <fmt/format.h>

#include "pipeline/pipeline_fixture.h"
#include "spectralquant/core/warning.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/estimate.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ValuesTest : public PipelineTest {
 protected:
  /// Writes the model with one value set.
  void put(const std::string& name, std::size_t index, float value) {
    write([=](auto&, auto& tensors) { tensor(tensors, name).values.at(index) = value; });
  }
  void write(const std::function<void(gguf::Metadata&, std::vector<model::TinyTensor>&)>& edit) {
    tiny_.edit = edit;
    model::write_tiny_qwen35(path("in.gguf"), tiny_);
  }
  static model::TinyTensor& tensor(std::vector<model::TinyTensor>& tensors,
                                   const std::string& name) {
    return *std::ranges::find(tensors, name, &model::TinyTensor::name);
  }
  /// An imatrix for every matrix of the model, all columns 1 but those of `special`: all of them,
  /// or n_columns from `first` on.
  void write_imatrix(const std::string& special, float value, float count = 8,
                     std::size_t first = 0, std::size_t n_columns = SIZE_MAX) {
    const gguf::File file = gguf::File::open(path("in.gguf"));
    gguf::Metadata metadata;
    metadata.set("general.type", gguf::Value::of_string("imatrix"));
    std::vector<gguf::TensorPlan> plans;
    std::vector<std::vector<float>> values;
    for (const gguf::Tensor& t : file.tensors()) {
      if (!gguf::is_matrix_to_quantize("qwen35", t)) continue;
      plans.push_back({t.name + ".in_sum2", gguf::Type::F32, 2, {t.n_cols(), 1, 1, 1}});
      plans.push_back({t.name + ".counts", gguf::Type::F32, 2, {1, 1, 1, 1}});
      const bool is_special = t.name == special;
      values.emplace_back(t.n_cols(), 8.0f);
      for (std::size_t i = 0; is_special && i < std::min(n_columns, t.n_cols() - first); ++i)
        values.back()[first + i] = value;
      values.push_back({is_special ? count : 8.0f});
    }
    gguf::WriteOptions write;
    write.overwrite = true;
    gguf::Writer writer(path("im.gguf"), metadata, plans, write);
    for (std::size_t i = 0; i < plans.size(); ++i)
      writer.write(i, 0, values[i].data(), 4 * values[i].size());
    writer.commit();
  }
  QuantizeOptions imatrix_options() {
    QuantizeOptions o = options(Method::kImatrix);
    o.calibration = {};
    o.signals_file = path("im.gguf");
    return o;
  }
  std::string refused(const QuantizeOptions& o) {
    const std::string text = refusal([&] { quantize_file(o); });
    EXPECT_FALSE(std::filesystem::exists(o.output));
    EXPECT_FALSE(std::filesystem::exists(o.output + ".partial"));
    return text;
  }
};

TEST_F(ValuesTest, WeightsBeyondEveryScaleAreRefusedWithTheirPlace) {
  for (const float value : {1e8f, -1e8f, 1e30f}) {
    put("blk.1.ffn_up.weight", 2 * 256 + 5, value);
    EXPECT_THAT(refused(options(Method::kPlain)),
                AllOf(HasSubstr("blk.1.ffn_up.weight cannot be rounded to Q4_K"),
                      HasSubstr("at row 2"), HasSubstr("at column 5"), HasSubstr("in.gguf")));
    write_imatrix("", 0);
    if (value > 0) {
      EXPECT_THAT(refused(imatrix_options()), HasSubstr("blk.1.ffn_up.weight cannot be rounded"));
    }
  }
  put("blk.1.ffn_up.weight", 2 * 256 + 5, 4e7f);  // the largest scale is 65,504
  quantize_file(options(Method::kPlain));
  EXPECT_NO_THROW(require_all_finite(gguf::File::open(path("out.gguf"))));
}

TEST_F(ValuesTest, ActivationsThatOverflowNameTheMatrix) {
  put("blk.1.post_attention_norm.weight", 5, 1e25f);
  EXPECT_THAT(refused(options(Method::kImatrix)),
              AllOf(HasSubstr("blk.1.ffn_down.weight: its inputs overflow"), HasSubstr("in.gguf")));
}

TEST_F(ValuesTest, AFallbackTypeMustHoldTheValues) {
  tiny_.feed_forward = 288;
  QuantizeOptions o = options(Method::kPlain);
  const auto fall_back = [&](gguf::Type type) {
    o.plan.fallback = type;
    return o;
  };
  put("blk.0.ffn_down.weight", 3 * 288 + 7, 70000);
  EXPECT_THAT(refused(fall_back(gguf::Type::F16)),
              AllOf(HasSubstr("blk.0.ffn_down.weight is 70144 at row 3, column 7, which F16"),
                    HasSubstr("--fallback bf16")));
  EXPECT_THAT(refusal([&] { estimate(o); }), HasSubstr("F16 cannot hold"));
  const QuantizeReport report = quantize_file(fall_back(gguf::Type::BF16));
  EXPECT_FALSE(report.strict);
  EXPECT_THAT(report.violations, ElementsAre("blk.0.ffn_down.weight is BF16, not Q4_K",
                                             "blk.1.ffn_down.weight is BF16, not Q4_K"));
  std::filesystem::remove(o.output);
  put("blk.0.ffn_down.weight", 3 * 288 + 7, -1e7f);
  EXPECT_THAT(refused(fall_back(gguf::Type::Q8_0)), HasSubstr("at row 3, column 7, which Q8_0"));
}

TEST_F(ValuesTest, AFileThatLlamaCppRefusesIsNotBegun) {
  write([](gguf::Metadata& metadata, auto&) {
    metadata.set("qwen35.context_length", gguf::Value::of_u64(4096));
  });
  EXPECT_THAT(refused(options(Method::kPlain)),
              AllOf(HasSubstr("qwen35.context_length is 4096 of type u64"),
                    HasSubstr("llama.cpp would not load it")));
  EXPECT_THAT(refusal([&] { estimate(options(Method::kPlain)); }), HasSubstr("of type u64"));
}

TEST_F(ValuesTest, ForeignTensorsAndZerosAreWarnedAbout) {
  write([](auto&, std::vector<model::TinyTensor>& tensors) {
    tensors.push_back({"v.blk.0.attn_q.weight", {256, 2}, std::vector<float>(512, 0.5f)});
    auto& values = tensor(tensors, "blk.0.ffn_up.weight").values;
    std::fill(values.begin() + 256, values.begin() + 256 * 300, 0.0f);
  });
  std::vector<std::string> told;
  const QuantizeReport report =
      quantize_file(options(Method::kPlain), [&](const ProgressEvent& event) {
        if (event.phase == kWarning) told.emplace_back(event.item);
      });
  EXPECT_EQ(told, report.warnings);
  EXPECT_THAT(told,
              ElementsAre(AllOf(HasSubstr("refuses such a file"), HasSubstr("v.blk.0.attn_q")),
                          HasSubstr("blk.0.ffn_up.weight is zero from row 1 to row 299")));
  EXPECT_TRUE(report.strict);
  EXPECT_THAT(report.violations, IsEmpty());
}

TEST_F(ValuesTest, AnImportanceOfZeroCountsAllColumnsAlike) {
  const std::string name = "blk.1.ffn_up.weight";
  write_imatrix(name, 0);
  const QuantizeReport report = quantize_file(imatrix_options());
  EXPECT_THAT(report.warnings, ElementsAre(AllOf(HasSubstr(name), HasSubstr("no importance"))));
  const std::string bytes = slurp(path("out.gguf"));
  write_imatrix(name, 0, 0);  // llama.cpp's way to say that no token came
  EXPECT_THAT(quantize_file(imatrix_options()).warnings, IsEmpty());
  const gguf::File out = gguf::File::open(path("out.gguf"));
  const gguf::Tensor& without_tokens = out.require(name);
  EXPECT_NE(bytes.find(std::string(reinterpret_cast<const char*>(without_tokens.data),
                                   without_tokens.size_bytes)),
            std::string::npos);
  write_imatrix("", 0);
  EXPECT_THAT(quantize_file(imatrix_options()).warnings, IsEmpty());
}

TEST_F(ValuesTest, ColumnsThatAnImportanceOfZeroTurnsIntoZerosAreNamed) {
  const std::string name = "blk.1.ffn_down.weight";
  const auto zeros = [&](const QuantizeOptions& o) {
    const gguf::File out = gguf::File::open(o.output);
    std::vector<float> row(512);
    gguf::decode(out.require(name), 0, 1, row.data());
    return std::count(row.begin(), row.end(), 0.0f);
  };
  QuantizeOptions o = imatrix_options();
  for (const auto& [type, n_columns] : {std::pair(gguf::Type::Q4_K, 256),
                                        {gguf::Type::Q5_K, 256},
                                        {gguf::Type::Q6_K, 16},
                                        {gguf::Type::Q2_K, 256},
                                        {gguf::Type::IQ4_XS, 32}}) {
    o.plan.type = type;
    write_imatrix(name, 0, 8, 256, n_columns);
    EXPECT_THAT(
        quantize_file(o).warnings,
        ElementsAre(HasSubstr(fmt::format(
            "{} becomes zero in {} of its 512 columns, from column 256", name, n_columns))));
    EXPECT_GE(zeros(o), n_columns);
    // a scale that some column counts for is not lost
    write_imatrix(name, 0, 8, 256, n_columns - 1);
    EXPECT_THAT(quantize_file(o).warnings, IsEmpty());
    EXPECT_LT(zeros(o), n_columns);
  }
  write_imatrix(name, 0, 8, 256, 256);
  o.plan.type = gguf::Type::Q4_K;
  EXPECT_THAT(estimate(o).warnings, ElementsAre(HasSubstr("from column 256 on")));
  o.method = Method::kSpectral;
  EXPECT_THAT(estimate(o).warnings, ElementsAre(HasSubstr("may become zero in 256")));
}

TEST_F(ValuesTest, TheOutputIsAlignedForLlamaCpp) {
  const gguf::File in = gguf::File::open(path("in.gguf"));
  std::vector<gguf::TensorPlan> plans;
  for (const auto& t : in.tensors()) plans.push_back({t.name, t.type, t.n_dims, t.shape});
  for (const std::uint32_t alignment : {8u, 64u}) {
    gguf::WriteOptions write;
    write.alignment = alignment;
    write.overwrite = true;
    gguf::Writer writer(path("aligned.gguf"), in.metadata(), plans, write);
    for (std::size_t i = 0; i < plans.size(); ++i)
      writer.write(i, 0, in.tensors()[i].data, in.tensors()[i].size_bytes);
    writer.commit();
    QuantizeOptions o = options(Method::kPlain);
    o.input = path("aligned.gguf");
    quantize_file(o);
    EXPECT_EQ(gguf::File::open(o.output).alignment(), std::max(alignment, 32u));
  }
}

TEST_F(ValuesTest, TheDiskMustHoldAllThatLiesBesideTheOutput) {
  EXPECT_THAT(refusal([&] { check_output(path("out.gguf"), {}, false, std::uint64_t{1} << 60); }),
              HasSubstr("what is kept beside it"));
  EXPECT_EQ(WorkFolder::size_bytes(path("out.gguf")), 0u);
  WorkFolder work(path("out.gguf"), "key", "{}", false);
  work.write("a", std::string(1000, 'a'));
  EXPECT_GT(WorkFolder::size_bytes(path("out.gguf")), 1000u);
}

TEST_F(ValuesTest, WhatIsNotFiniteGetsNoName) {
  const gguf::File in = gguf::File::open(path("in.gguf"));
  gguf::Writer writer(path("bad.gguf"), in.metadata(), {{"w", gguf::Type::F32, 1, {2, 1, 1, 1}}});
  const float values[2] = {1, std::nanf("")};
  writer.write(0, 0, values, sizeof values);
  EXPECT_THAT(refusal([&] { writer.commit(require_all_finite); }),
              HasSubstr("w holds NaN at row 0, column 1"));
  EXPECT_FALSE(std::filesystem::exists(path("bad.gguf")));
}

}  // namespace
}  // namespace spectralquant::pipeline
