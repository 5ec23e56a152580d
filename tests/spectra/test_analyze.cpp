// The tiny model from calibration to report: what is predicted is what is measured, and what does
// not fit is refused.
#include <cmath>
#include <nlohmann/json.hpp>

#include "calibrate/calibrate_fixture.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/spectra/measure.h"
#include "spectralquant/spectra/report.h"

namespace spectralquant::spectra {
namespace {

using calibrate::refusal;
using ::testing::AllOf;
using ::testing::HasSubstr;

class AnalyzeTest : public calibrate::TinyModelTest {
 protected:
  void gather(const model::TinyOptions& options = {}, bool output_moments = true) {
    open(options);
    signals_ = calibrate::collect(model(), windows_, {.output_moments = output_moments});
    signals_.model_hash = file_->hash();
    signals_.description = "random";
  }

  /// The tiny model with noise of this size, relative to each matrix, on every matrix.
  std::unique_ptr<gguf::File> noisy(double size, const std::string& name) {
    model::TinyOptions options;
    options.type = gguf::Type::F32;
    options.edit = [&](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
      std::mt19937_64 random(3);
      for (auto& tensor : tensors) {
        if (tensor.shape.size() < 2 || tensor.name.find("conv1d") != std::string::npos) continue;
        double squares = 0;
        for (const float v : tensor.values) squares += static_cast<double>(v) * v;
        const double step =
            size * std::sqrt(12 * squares / static_cast<double>(tensor.values.size()));
        for (float& v : tensor.values)
          v += static_cast<float>(step * (static_cast<double>(random() >> 11) * 0x1p-53 - 0.5));
      }
    };
    return std::make_unique<gguf::File>(
        gguf::File::open(model::write_tiny_qwen35(path(name), options)));
  }

  calibrate::Windows windows_ = calibrate::random_windows(2, 32);
  calibrate::Signals signals_;
};

model::TinyOptions f32() {
  model::TinyOptions options;
  options.type = gguf::Type::F32;
  return options;
}

TEST_F(AnalyzeTest, WithoutAReferenceItShowsSpectra) {
  gather();
  const Report report = analyze(signals_, nullptr, {});
  ASSERT_EQ(report.matrices.size(), signals_.matrices.size());
  EXPECT_EQ(report.matrices.front().block, 0);
  EXPECT_EQ(report.matrices.back().id, "token_embd.weight");
  EXPECT_TRUE(report.matrices.back().spectra.lookup);
  for (const MatrixReport& m : report.matrices) {
    EXPECT_TRUE(m.spectra.input && m.spectra.output) << m.id;
    EXPECT_GE(m.spectra.input->effective_rank, m.spectra.input->participation_ratio) << m.id;
    EXPECT_LE(m.spectra.input->effective_rank, 1.0001 * static_cast<double>(m.cols)) << m.id;
    EXPECT_TRUE(m.errors.empty());
  }
  EXPECT_THAT(to_terminal(report, 3, false),
              AllOf(HasSubstr("effective rank"), HasSubstr("more: --top 0")));
}

TEST_F(AnalyzeTest, WithoutOutputMomentsOnlyInputsHaveSpectra) {
  gather({}, false);
  const Report report = analyze(signals_, nullptr, {});
  EXPECT_TRUE(report.matrices[0].spectra.input);
  EXPECT_FALSE(report.matrices[0].spectra.output);
  EXPECT_TRUE(nlohmann::json::parse(to_json(report, false))["matrices"][0]["output"].is_null());
  EXPECT_THAT(refusal([&] {
                analyze(signals_, file_.get(), {{"plain", nullptr}});
              }),
              AllOf(HasSubstr("no output moments"), HasSubstr("--output-moments")));
}

TEST_F(AnalyzeTest, SmallNoiseCostsWhatIsPredicted) {
  windows_ = calibrate::random_windows(4, 64);
  gather(f32());
  const auto file = noisy(0.01, "noisy.gguf");
  const std::vector<Variant> variants = {{"noisy", file.get()}};
  Report report = analyze(signals_, file_.get(), variants);
  measure(report, model(), variants, windows_, "random");
  EXPECT_EQ(report.measured_tokens, 4 * 63);
  for (const MatrixReport& m : report.matrices) {
    const ErrorSplit& error = m.errors[0];
    EXPECT_NEAR(error.relative_energy, 1e-4, 1e-5) << m.id;
    // noise is white; small matrices scatter
    EXPECT_NEAR(error.predicted_kl / error.white_kl, 1, 0.25) << m.id;
    // 256 tokens, and moments of single tokens that are taken as independent: single matrices
    // scatter by a third, those of four rows by more.
    if (m.rows < 64) continue;
    EXPECT_GT(m.measured_kl[0], 0.6 * error.predicted_kl) << m.id;
    EXPECT_LT(m.measured_kl[0], 1.6 * error.predicted_kl) << m.id;
  }
  const VariantReport& whole = report.variants[0];
  EXPECT_NEAR(whole.measured_sum_kl / whole.predicted_kl, 1, 0.2);
  // noises that know nothing of each other add up
  EXPECT_NEAR(whole.measured_kl / whole.measured_sum_kl, 1, 0.1);
  EXPECT_GT(whole.rank_correlation, 0.9);
}

TEST_F(AnalyzeTest, PlainRoundingIsMeasuredToo) {
  gather();
  const std::vector<Variant> variants = {{"plain rounding", nullptr}, {"itself", file_.get()}};
  Report report = analyze(signals_, file_.get(), variants);
  measure(report, model(), variants, windows_, "random");
  EXPECT_GT(report.variants[0].measured_kl, 0);
  EXPECT_EQ(report.variants[1].measured_kl, 0);  // no error, no cost
  EXPECT_EQ(report.variants[1].predicted_kl, 0);
  double sum = 0;
  for (const BlockReport& block : report.blocks) {
    EXPECT_GT(block.measured_kl[0], 0) << block.name;
    sum += block.predicted_kl[0];
  }
  EXPECT_NEAR(sum, report.variants[0].predicted_kl, 1e-9);
  EXPECT_EQ(report.blocks.size(), 3u);  // two blocks and the embedding
  const auto out = nlohmann::json::parse(to_json(report, true));
  EXPECT_EQ(out["variants"][0]["path"], nullptr);
  EXPECT_EQ(out["matrices"][0]["errors"].size(), 2u);
  EXPECT_EQ(out["matrices"][0]["input"]["eigenvalues"].size(), 256u);
  EXPECT_EQ(out["measured"]["tokens"], 2 * 31);
  EXPECT_FALSE(nlohmann::json::parse(to_json(report, false))["matrices"][0]["input"].contains(
      "eigenvalues"));
  EXPECT_THAT(to_terminal(report, 0, false),
              AllOf(HasSubstr("plain rounding"), HasSubstr("rank correlation"),
                    HasSubstr("whole model"), HasSubstr("white noise")));
}

TEST_F(AnalyzeTest, AHeadOfItsOwnLeavesTheEmbeddingALookup) {
  model::TinyOptions options;
  options.tied = false;
  gather(options);
  const std::vector<Variant> variants = {{"plain rounding", nullptr}};
  Report report = analyze(signals_, file_.get(), variants);
  measure(report, model(), variants, windows_, "random");
  const MatrixReport& embedding = report.matrices.back();
  EXPECT_EQ(embedding.id, "token_embd.weight");
  EXPECT_TRUE(embedding.spectra.lookup_only);
  EXPECT_GT(embedding.errors[0].predicted_kl, 0);
  EXPECT_GT(embedding.measured_kl[0], 0);
  EXPECT_TRUE(nlohmann::json::parse(to_json(report, false))["matrices"].back()["lookup_only"]);
}

TEST_F(AnalyzeTest, TheResultDoesNotDependOnTheThreads) {
  gather();
  const auto run = [&](int n_threads) {
    model::set_threads(n_threads);
    return to_json(analyze(signals_, file_.get(), {{"plain rounding", nullptr}}), true);
  };
  const std::string one = run(1), two = run(2);
  model::set_threads(0);
  EXPECT_EQ(one, two);
}

TEST_F(AnalyzeTest, SignalsOfAnotherModelAreRefused) {
  gather();
  model::TinyOptions other;
  other.seed = 2;
  const auto file = gguf::File::open(model::write_tiny_qwen35(path("other.gguf"), other));
  EXPECT_THAT(refusal([&] { analyze(signals_, &file, {}); }),
              HasSubstr("signals are of another model"));
  signals_.model_hash.clear();  // a file without a hash is judged by its sizes
  signals_.matrices["blk.9.ffn_up.weight"] = signals_.matrices["blk.0.ffn_up.weight"];
  EXPECT_THAT(refusal([&] { analyze(signals_, &file, {}); }),
              AllOf(HasSubstr("no blk.9.ffn_up.weight"), HasSubstr("another model")));
}

TEST_F(AnalyzeTest, CandidatesOfAnotherModelAreRefused) {
  gather();
  model::TinyOptions wide, shallow;
  wide.feed_forward = 768;
  shallow.n_blocks = 1;
  const auto a = gguf::File::open(model::write_tiny_qwen35(path("wide.gguf"), wide)),
             b = gguf::File::open(model::write_tiny_qwen35(path("shallow.gguf"), shallow));
  EXPECT_THAT(refusal([&] {
                analyze(signals_, file_.get(), {{"wide", &a}});
              }),
              HasSubstr("the original's another"));
  EXPECT_THAT(refusal([&] {
                analyze(signals_, file_.get(), {{"shallow", &b}});
              }),
              HasSubstr("it has no blk.1"));
}

TEST_F(AnalyzeTest, NoTextToMeasureOnIsRefused) {
  gather();
  Report report = analyze(signals_, file_.get(), {});
  EXPECT_THAT(refusal([&] { measure(report, model(), {}, {}, ""); }),
              HasSubstr("no text to measure on"));
  EXPECT_THAT(refusal([&] { measure(report, model(), {}, {{1}}, ""); }), HasSubstr("one token"));
}

TEST(RankCorrelation, FollowsTheOrderAlone) {
  EXPECT_NEAR(rank_correlation({1, 2, 3, 4}, {10, 100, 1000, 1e4}), 1, 1e-12);
  EXPECT_NEAR(rank_correlation({1, 2, 3, 4}, {4, 3, 2, 1}), -1, 1e-12);
  EXPECT_NEAR(rank_correlation({1, 2, 2, 3}, {1, 2, 2, 3}), 1, 1e-12);
  EXPECT_NEAR(rank_correlation({1, 2, 3}, {1, 3, 2}), 0.5, 1e-12);
  EXPECT_TRUE(std::isnan(rank_correlation({1, 1}, {1, 2})));
  EXPECT_TRUE(std::isnan(rank_correlation({}, {})));
}

}  // namespace
}  // namespace spectralquant::spectra
