// Signals fit every file that runs: what no forward pass of the model reads needs none.
#include "pipeline/pipeline_fixture.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/pipeline/calibration_text.h"

namespace spectralquant::pipeline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kVision = "v.blk.0.attn_q.weight";

class SignalsFitTest : public PipelineTest {
 protected:
  void SetUp() override {
    tiny_.draft = true;
    tiny_.edit = [](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
      tensors.push_back({kVision, {256, 4}, std::vector<float>(1024, 0.5f)});
    };
    PipelineTest::SetUp();
  }

  /// Signals of the model from the text, saved; `keep` chooses the matrices.
  void save(const std::string& name, const std::function<bool(const std::string&)>& keep) {
    const gguf::File file = gguf::File::open(path("in.gguf"));
    model::Model model(file);
    const CalibrationText text = load_calibration(model, options().calibration, 0);
    calibrate::Signals signals = calibrate::collect(model, text.windows);
    std::erase_if(signals.matrices, [&](const auto& entry) { return !keep(entry.first.text()); });
    signals.model_hash = file.hash();
    calibrate::save_signals(signals, path(name), true);
    calibrate::save_imatrix(signals, path("im-" + name), 64, true);
  }

  QuantizeReport with_signals(const std::string& name, Method method = Method::kSpectral) {
    QuantizeOptions o = options(method);
    o.calibration = {};
    o.signals_file = path(name);
    const QuantizeReport report = quantize_file(o);
    EXPECT_TRUE(gguf::take_inventory(gguf::File::open(o.output)).strict);
    return report;
  }
};

TEST_F(SignalsFitTest, TheModelsOwnSignalsFit) {
  save("own.gguf", [](const std::string&) { return true; });
  EXPECT_THAT(with_signals("own.gguf").without_signal, ElementsAre(kVision));
  EXPECT_THAT(with_signals("im-own.gguf").without_signal, ElementsAre(kVision));
  EXPECT_THAT(with_signals("im-own.gguf", Method::kImatrix).without_signal, ElementsAre(kVision));
}

TEST_F(SignalsFitTest, ADraftBlockMayBeMissingAsInAStockImatrix) {
  save("trunk.gguf", [](const std::string& name) {
    return model::block_of(name) < 2 && name != "token_embd.weight";
  });
  const auto without = with_signals("im-trunk.gguf", Method::kImatrix).without_signal;
  EXPECT_EQ(without.size(), 1u + 8u + 1u) << "the tied head, the draft block, vision";
  EXPECT_THAT(without, ::testing::Contains("blk.2.nextn.eh_proj.weight"));
}

TEST_F(SignalsFitTest, WhatTheModelMultipliesByMayNot) {
  save("holes.gguf", [](const std::string& name) { return name != "blk.1.attn_k.weight"; });
  const auto text = refusal([&] { with_signals("holes.gguf"); });
  EXPECT_THAT(text, HasSubstr("no signal for blk.1.attn_k.weight"));
  EXPECT_THAT(text, HasSubstr("holes.gguf"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("another model")));
}

TEST_F(SignalsFitTest, TextReachesTheDraftBlock) {
  for (const bool sequential : {true, false}) {
    QuantizeOptions o = options();
    o.moments = sequential ? Moments::kSequential : Moments::kStatic;
    const QuantizeReport report = quantize_file(o);
    EXPECT_THAT(report.without_signal, ElementsAre(kVision));
    int n = 0;
    for (const auto& matrix : report.matrices) {
      if (model::block_of(matrix.id.tensor) != 2) continue;
      ++n;
      EXPECT_LT(matrix.objective, matrix.plain_objective) << matrix.id;
    }
    EXPECT_EQ(n, 8);
  }
  QuantizeOptions plain = options(Method::kPlain);
  EXPECT_THAT(quantize_file(plain).without_signal, IsEmpty());
}

}  // namespace
}  // namespace spectralquant::pipeline
