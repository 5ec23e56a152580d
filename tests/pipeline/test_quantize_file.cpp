#include <nlohmann/json.hpp>

#include "pipeline/pipeline_fixture.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/estimate.h"

namespace spectralquant::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class QuantizeFileTest : public PipelineTest {
 protected:
  /// Quantizes twice: strict, complete and the same bytes.
  QuantizeReport check(const QuantizeOptions& options) {
    const QuantizeReport report = quantize_file(options);
    const std::string bytes = slurp(options.output);
    const gguf::File in = gguf::File::open(options.input), out = gguf::File::open(options.output);
    const gguf::Inventory inventory = gguf::take_inventory(out);
    EXPECT_TRUE(inventory.strict);
    EXPECT_DOUBLE_EQ(report.matrix_bpw, 4.5);
    EXPECT_EQ(report.output_bytes, bytes.size());
    EXPECT_EQ(report.output_hash, out.hash());
    EXPECT_EQ(in.tensors().size(), out.tensors().size());
    for (std::size_t i = 0; i < in.tensors().size(); ++i)
      EXPECT_EQ(in.tensors()[i].name, out.tensors()[i].name);
    EXPECT_EQ(report.matrices.size(), inventory.types.at(gguf::Type::Q4_K).n_tensors);
    EXPECT_FALSE(std::filesystem::exists(options.output + ".partial"));
    quantize_file(options);
    EXPECT_TRUE(slurp(options.output) == bytes) << "another run gave other bytes";
    return report;
  }

  static double total(const QuantizeReport& report, double MatrixReport::*what) {
    double sum = 0;
    for (const auto& matrix : report.matrices) sum += matrix.*what;
    return sum;
  }
};

TEST_F(QuantizeFileTest, PlainNeedsNoCalibration) {
  const QuantizeReport report = check(options(Method::kPlain));
  EXPECT_EQ(report.calibration_tokens, 0);
  for (const auto& matrix : report.matrices) {
    EXPECT_EQ(matrix.objective, matrix.plain_objective) << matrix.id;
    EXPECT_GT(matrix.relative_error, 0.0005) << matrix.id;
    EXPECT_LT(matrix.relative_error, 0.02) << matrix.id;
  }
}

TEST_F(QuantizeFileTest, EveryFormatIsWrittenStrictly) {
  for (const auto& [type, file_type, method] : {std::tuple{gguf::Type::Q5_K, 17, Method::kSpectral},
                                                {gguf::Type::Q6_K, 18, Method::kSpectral},
                                                {gguf::Type::Q3_K, 12, Method::kSpectral},
                                                {gguf::Type::IQ4_NL, 25, Method::kSpectral},
                                                {gguf::Type::Q6_K, 18, Method::kPlain},
                                                {gguf::Type::Q2_K, 10, Method::kPlain},
                                                {gguf::Type::IQ4_XS, 30, Method::kPlain},
                                                {gguf::Type::Q4_0, 2, Method::kPlain},
                                                {gguf::Type::Q5_0, 8, Method::kPlain},
                                                {gguf::Type::Q8_0, 7, Method::kPlain}}) {
    QuantizeOptions o = options(method);
    o.plan.type = type;
    const QuantizeReport report = quantize_file(o);
    const gguf::File out = gguf::File::open(o.output);
    const gguf::Inventory inventory = gguf::take_inventory(out);
    EXPECT_TRUE(inventory.strict);
    EXPECT_EQ(inventory.matrix_type, type);
    EXPECT_EQ(out.metadata().int_or("general.file_type", 0), file_type);
    EXPECT_EQ(out.metadata().int_or("general.quantization_version", 0), 2);
    for (const auto& matrix : report.matrices)
      EXPECT_LE(matrix.objective, matrix.plain_objective) << matrix.id;
    if (method != Method::kSpectral) continue;
    o.tune.tokens = 256;
    ASSERT_TRUE(quantize_file(o).tuning.has_value());
    EXPECT_EQ(gguf::take_inventory(gguf::File::open(o.output)).matrix_type, type);
  }
}

TEST_F(QuantizeFileTest, ImatrixRoundsUnderTheDiagonal) {
  const QuantizeReport report = check(options(Method::kImatrix));
  EXPECT_GT(report.calibration_tokens, 64);
  EXPECT_EQ(total(report, &MatrixReport::objective),
            total(report, &MatrixReport::imatrix_objective));
  EXPECT_GT(total(report, &MatrixReport::plain_objective), 0);
}

TEST_F(QuantizeFileTest, TheSolverBeatsBothRoundings) {
  for (const bool sequential : {false, true}) {
    QuantizeOptions o = options();
    o.moments = sequential ? Moments::kSequential : Moments::kStatic;
    const QuantizeReport report = check(o);
    for (const auto& matrix : report.matrices) {
      EXPECT_LE(matrix.objective, matrix.plain_objective * (1 + 1e-9)) << matrix.id;
      EXPECT_LE(matrix.objective, matrix.imatrix_objective * (1 + 1e-9)) << matrix.id;
    }
    EXPECT_LT(total(report, &MatrixReport::objective),
              0.9 * total(report, &MatrixReport::plain_objective));
  }
}

TEST_F(QuantizeFileTest, SequentialWithoutDriftAndOneSided) {
  QuantizeOptions o = options();
  o.drift_correction = 0;
  check(o);
  o = options();
  o.two_sided = false;
  check(o);
}

TEST_F(QuantizeFileTest, AHeadOfItsOwn) {
  tiny_.tied = false;
  model::write_tiny_qwen35(path("in.gguf"), tiny_);
  for (const bool two_sided : {false, true}) {
    QuantizeOptions o = options();
    o.two_sided = two_sided;
    check(o);
    o.moments = Moments::kStatic;
    check(o);
  }
  check(options(Method::kImatrix));
}

TEST_F(QuantizeFileTest, TheModelsOwnSamplesAlone) {
  QuantizeOptions o = options();
  o.calibration.files.clear();
  o.calibration.self_tokens = 200;
  EXPECT_EQ(check(o).calibration_tokens, 256);  // whole windows
  const gguf::File out = gguf::File::open(o.output);
  EXPECT_EQ(out.metadata().require_string("spectralquant.calibration"), "self:256");
}

TEST_F(QuantizeFileTest, SaysHowItWasMade) {
  QuantizeOptions o = options();
  o.seed = 11;
  o.output = path("elsewhere.gguf");
  quantize_file(o);
  const gguf::File in = gguf::File::open(o.input), out = gguf::File::open(o.output);
  const gguf::Metadata& m = out.metadata();
  for (const auto& [key, value] : in.metadata().items()) {
    if (key == "general.file_type" || key == "general.quantization_version") continue;
    ASSERT_NE(m.find(key), nullptr) << key;
    EXPECT_EQ(m.find(key)->bytes(), value.bytes()) << key;
    EXPECT_EQ(m.find(key)->type(), value.type()) << key;
  }
  EXPECT_EQ(m.require_int("general.file_type"), 15);
  EXPECT_EQ(m.require_int("general.quantization_version"), 2);
  EXPECT_EQ(m.require_string("spectralquant.method"), "spectral");
  EXPECT_EQ(m.require_int("spectralquant.seed"), 11);
  EXPECT_EQ(m.require_int("spectralquant.threads"), 1);
  EXPECT_EQ(m.require_string("spectralquant.model_hash"), in.hash());
  EXPECT_EQ(m.require_string("spectralquant.calibration"), "text.txt");
  EXPECT_EQ(m.require_string("spectralquant.calibration_hash").size(), 32u);
  const auto json = nlohmann::json::parse(m.require_string("spectralquant.options"));
  EXPECT_EQ(json.at("moments"), "sequential");
  EXPECT_EQ(json.at("window_tokens"), 64);
  // a result does not depend on where it lies
  EXPECT_THAT(json.dump(), ::testing::Not(HasSubstr("elsewhere")));
}

TEST_F(QuantizeFileTest, SignalsFromAFileAreThoseOfTheText) {
  QuantizeOptions o = options();
  o.moments = Moments::kStatic;
  quantize_file(o);
  const gguf::File direct = gguf::File::open(o.output);

  const gguf::File file = gguf::File::open(o.input);
  model::Model model(file);
  const CalibrationText text = load_calibration(model, o.calibration, 0);
  calibrate::Signals signals = calibrate::collect(model, text.windows, {.output_moments = true});
  signals.model_hash = file.hash();
  signals.text_hash = text.hash;
  signals.description = text.description;
  calibrate::save_signals(signals, path("signals.gguf"), false);
  calibrate::save_imatrix(signals, path("imatrix.gguf"), 64, false);

  const auto same_tensors = [](const gguf::File& a, const gguf::File& b) {
    for (const auto& t : a.tensors()) {
      if (std::memcmp(t.data, b.require(t.name).data, t.size_bytes) != 0) return false;
    }
    return true;
  };
  QuantizeOptions from_file = o;
  from_file.calibration = {};
  from_file.moments = Moments::kSequential;  // signals are static all the same
  from_file.output = path("from_file.gguf");
  from_file.signals_file = path("signals.gguf");
  check(from_file);
  EXPECT_TRUE(same_tensors(direct, gguf::File::open(from_file.output)));

  from_file.signals_file = path("imatrix.gguf");  // the solver under a diagonal
  check(from_file);
  from_file.method = Method::kImatrix;
  const QuantizeReport diagonal = check(from_file);
  const gguf::File by_imatrix = gguf::File::open(from_file.output);
  quantize_file(options(Method::kImatrix));
  EXPECT_TRUE(same_tensors(by_imatrix, gguf::File::open(path("out.gguf"))));
  EXPECT_EQ(diagonal.calibration_tokens, signals.n_tokens);

  from_file.method = Method::kSpectral;
  from_file.signals_file = path("signals.gguf");

  tiny_.seed = 99;
  model::write_tiny_qwen35(path("other.gguf"), tiny_);
  from_file.input = path("other.gguf");
  EXPECT_THAT(refusal([&] { quantize_file(from_file); }),
              HasSubstr("signals are of another model"));
  tiny_.hidden = 512;
  model::write_tiny_qwen35(path("other.gguf"), tiny_);
  from_file.signals_file = path("imatrix.gguf");
  EXPECT_THAT(refusal([&] { quantize_file(from_file); }),
              AllOf(HasSubstr("has size 256, the model needs 512"), HasSubstr("of another model")));
}

TEST_F(QuantizeFileTest, AFallbackTypeIsWrittenAndReported) {
  tiny_.feed_forward = 288;  // ffn_down has 288 columns, no multiple of 256
  model::write_tiny_qwen35(path("in.gguf"), tiny_);
  EXPECT_THAT(refusal([&] { quantize_file(options()); }), HasSubstr("288 columns"));
  for (const gguf::Type type :
       {gguf::Type::Q8_0, gguf::Type::F16, gguf::Type::BF16, gguf::Type::F32}) {
    QuantizeOptions o = options();
    o.plan.fallback = type;
    quantize_file(o);
    const gguf::File in = gguf::File::open(o.input), out = gguf::File::open(o.output);
    const gguf::Tensor& before = in.require("blk.0.ffn_down.weight");
    const gguf::Tensor& after = out.require("blk.0.ffn_down.weight");
    EXPECT_EQ(after.type, type);
    std::vector<float> a(before.n_values()), b(a.size());
    gguf::decode(before, 0, before.n_rows(), a.data());
    gguf::decode(after, 0, after.n_rows(), b.data());
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::fabs(double(a[i]) - b[i]));
      largest = std::max(largest, std::fabs(double(a[i])));
    }
    EXPECT_LE(worst, type == gguf::Type::Q8_0  ? largest / 254 * 1.01
                     : type == gguf::Type::F16 ? largest / 2048
                                               : 0)
        << gguf::traits(type).name;
  }
}

TEST_F(QuantizeFileTest, EverySliceOfAStackIsAMatrix) {
  tiny_.edit = [](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
    std::vector<float> values(256 * 3 * 2);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
    tensors.push_back({"blk.0.ffn_up_exps.weight", {256, 3, 2}, values});
  };
  model::write_tiny_qwen35(path("in.gguf"), tiny_);
  for (const Method method : {Method::kPlain, Method::kSpectral}) {
    const QuantizeReport report = quantize_file(options(method));
    EXPECT_TRUE(gguf::take_inventory(gguf::File::open(options().output)).strict);
    std::vector<std::string> slices;
    for (const auto& matrix : report.matrices) {
      if (matrix.id.slice == gguf::MatrixId::kWhole) continue;
      slices.push_back(matrix.id.text());
      EXPECT_EQ(matrix.rows, 3);
      EXPECT_LE(matrix.objective, matrix.plain_objective);
    }
    EXPECT_THAT(slices, ::testing::ElementsAre("blk.0.ffn_up_exps.weight[0]",
                                               "blk.0.ffn_up_exps.weight[1]"));
  }
}

TEST_F(QuantizeFileTest, RefusesWrongOptions) {
  const auto why = [&](const std::function<void(QuantizeOptions&)>& change) {
    QuantizeOptions o = options();
    change(o);
    return refusal([&] { quantize_file(o); });
  };
  EXPECT_THAT(why([](auto& o) { o.input.clear(); }), HasSubstr("no input"));
  EXPECT_THAT(why([](auto& o) { o.output.clear(); }), HasSubstr("no output"));
  EXPECT_THAT(why([](auto& o) { o.calibration.files.clear(); }), HasSubstr("needs calibration"));
  EXPECT_THAT(why([](auto& o) { o.signals_file = "x.gguf"; }), HasSubstr("both given"));
  EXPECT_THAT(why([](auto& o) { o.calibration.window_tokens = 1; }),
              HasSubstr("window_tokens is 1"));
  EXPECT_THAT(why([](auto& o) { o.calibration.window_tokens = 5000; }),
              HasSubstr("the model was made for 4096"));
  EXPECT_THAT(why([](auto& o) { o.calibration.max_tokens = -1; }), HasSubstr("max_tokens is -1"));
  EXPECT_THAT(why([](auto& o) { o.drift_correction = 1.5; }), HasSubstr("drift_correction is 1.5"));
  EXPECT_THAT(why([](auto& o) { o.device = "abacus"; }), HasSubstr("unknown device"));
  // the text is shorter than a window
  EXPECT_THAT(why([](auto& o) { o.calibration.window_tokens = 4096; }), HasSubstr("4096"));
}

TEST_F(QuantizeFileTest, RefusesOutputsBeforeAnyWork) {
  const auto why = [&](const std::string& output, bool overwrite = false) {
    QuantizeOptions o = options(Method::kPlain);
    o.output = output;
    o.overwrite = overwrite;
    bool worked = false;
    const std::string what =
        refusal([&] { quantize_file(o, [&](const ProgressEvent&) { worked = true; }); });
    EXPECT_FALSE(worked) << output;
    return what;
  };
  spew(path("there.gguf"), "precious");
  std::filesystem::create_directory(path("folder"));
  EXPECT_THAT(why(path("there.gguf")), HasSubstr("exists"));
  EXPECT_THAT(why(path("in.gguf"), true), HasSubstr("is the input"));
  EXPECT_THAT(why(path("folder"), true), HasSubstr("is a folder"));
  EXPECT_THAT(why(path("nowhere/out.gguf")),
              AllOf(HasSubstr("output's folder"), HasSubstr("does not exist")));
  EXPECT_EQ(slurp(path("there.gguf")), "precious");
}

TEST_F(QuantizeFileTest, AnInputThatIsNotFiniteIsNamed) {
  tiny_.edit = [](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
    tensors[3].values[2] = INFINITY;
  };
  model::write_tiny_qwen35(path("in.gguf"), tiny_);
  EXPECT_NE(refusal([&] { quantize_file(options(Method::kPlain)); }), "");
  EXPECT_FALSE(std::filesystem::exists(path("out.gguf")));
}

TEST_F(QuantizeFileTest, AStoppedJobLeavesNothing) {
  for (const std::string_view phase : {"collect", "solve"}) {
    EXPECT_THROW(quantize_file(options(),
                               [&](const ProgressEvent& event) {
                                 if (event.phase == phase) throw std::runtime_error("stop");
                               }),
                 std::runtime_error)
        << phase;
    EXPECT_FALSE(std::filesystem::exists(path("out.gguf")));
    EXPECT_FALSE(std::filesystem::exists(path("out.gguf.partial")));
  }
}

class TunedFileTest : public QuantizeFileTest {
 protected:
  QuantizeOptions tuned() const {
    QuantizeOptions o = options(Method::kImatrix);  // a quick start with much to gain
    o.calibration.window_tokens = 32;
    o.tune.tokens = 24 * 128;
    o.tune.batch_tokens = 128;
    o.tune.own_share = 0;
    return o;
  }
  bool work_left() const { return std::filesystem::exists(path("out.gguf.work")); }
};

TEST_F(TunedFileTest, IsStrictBetterAndSaysSo) {
  const QuantizeOptions o = tuned();
  const QuantizeReport report = check(o);
  EXPECT_FALSE(work_left());
  ASSERT_TRUE(report.tuning.has_value());
  EXPECT_EQ(report.tuning->n_steps, 24);
  EXPECT_LT(report.tuning->held_end, report.tuning->held_start);
  const gguf::File out = gguf::File::open(o.output);
  const auto json = nlohmann::json::parse(out.metadata().require_string("spectralquant.options"));
  EXPECT_EQ(json.at("tune_tokens"), 24 * 128);
  const auto result = nlohmann::json::parse(out.metadata().require_string("spectralquant.tuning"));
  EXPECT_EQ(result.at("held_aside_kl").at(1), report.tuning->held_end);
  // The F32 tensors are tuned too.
  EXPECT_NE(std::memcmp(out.require("output_norm.weight").data,
                        gguf::File::open(o.input).require("output_norm.weight").data, 64),
            0);
}

TEST_F(TunedFileTest, AStoppedRunKeepsItsWorkAndGoesOnFromIt) {
  const QuantizeOptions o = tuned();
  quantize_file(o);
  const std::string whole = slurp(o.output);
  std::filesystem::remove(o.output);
  int seen = 0;
  EXPECT_THROW(quantize_file(o,
                             [&](const ProgressEvent& event) {
                               if (event.phase == "tune" && ++seen == 14)
                                 throw std::runtime_error("stop");
                             }),
               std::runtime_error);
  EXPECT_FALSE(std::filesystem::exists(o.output));
  EXPECT_TRUE(std::filesystem::exists(path("out.gguf.work/solved.gguf")));
  EXPECT_TRUE(std::filesystem::exists(path("out.gguf.work/checkpoint.gguf")));
  int steps = 0;
  const auto count = [&](const ProgressEvent& event) {
    EXPECT_NE(event.phase, "solve");
    steps += event.phase == "tune";
  };
  quantize_file(o, count);
  EXPECT_TRUE(slurp(o.output) == whole);
  EXPECT_LT(steps, 24);
  EXPECT_FALSE(work_left());
}

TEST_F(TunedFileTest, TheWorkOfOtherOptionsIsNotTakenUp) {
  QuantizeOptions o = tuned();
  const auto stop = [](const ProgressEvent& event) {
    if (event.phase == "tune") throw std::runtime_error("stop");
  };
  EXPECT_THROW(quantize_file(o, stop), std::runtime_error);
  o.calibration.max_tokens = 512;
  o.overwrite = false;
  EXPECT_THAT(refusal([&] { quantize_file(o); }), HasSubstr("unfinished run"));
  o.overwrite = true;
  EXPECT_FALSE(quantize_file(o).matrices.empty());
}

TEST_F(TunedFileTest, TheSolvedFileIsWrittenWhereTuningGainsNothing) {
  QuantizeOptions o = tuned();
  o.tune.rate = 0.9;  // weights of noise
  const QuantizeReport report = quantize_file(o);
  EXPECT_FALSE(report.tuning->gained());
  const gguf::File kept = gguf::File::open(o.output);
  const auto tuning = nlohmann::json::parse(kept.metadata().require_string("spectralquant.tuning"));
  EXPECT_EQ(tuning.at("kept"), "solved");
  // the first step of tuning would have moved it
  EXPECT_EQ(std::memcmp(kept.require("output_norm.weight").data,
                        gguf::File::open(o.input).require("output_norm.weight").data, 64),
            0);
}

TEST_F(TunedFileTest, RefusesWrongOptions) {
  const auto why = [&](const std::function<void(QuantizeOptions&)>& change) {
    QuantizeOptions o = tuned();
    change(o);
    return refusal([&] { quantize_file(o); });
  };
  EXPECT_THAT(why([](auto& o) { o.tune.tokens = -1; }), HasSubstr("tune_tokens is -1"));
  EXPECT_THAT(why([](auto& o) { o.method = Method::kPlain; }),
              HasSubstr("tuning needs calibration text"));
  EXPECT_THAT(why([](auto& o) {
                o.calibration = {};
                o.signals_file = "x.gguf";
              }),
              HasSubstr("tuning needs calibration text"));
  EXPECT_THAT(why([](auto& o) { o.tune.rate = -1; }), HasSubstr("tune_rate is -1"));
  EXPECT_THAT(why([](auto& o) { o.tune.own_share = 1.5; }), HasSubstr("tune_own_share is 1.5"));
  EXPECT_THAT(why([](auto& o) { o.tune.max_own_epochs = 0; }), HasSubstr("at least 1"));
  EXPECT_THAT(why([](auto& o) { o.calibration.max_tokens = 32; }),
              HasSubstr("too little for tuning"));
  EXPECT_FALSE(work_left());
}

TEST_F(QuantizeFileTest, AnEstimateDoesNothingButTellTheSize) {
  for (const Method method : {Method::kPlain, Method::kSpectral}) {
    const QuantizeOptions o = options(method);
    const QuantizeEstimate guess = estimate(o);
    EXPECT_FALSE(std::filesystem::exists(o.output));
    const QuantizeReport report = quantize_file(o);
    EXPECT_DOUBLE_EQ(guess.file_bpw, report.file_bpw);
    EXPECT_DOUBLE_EQ(guess.matrix_bpw, report.matrix_bpw);
    EXPECT_EQ(guess.matrices.size(), report.matrices.size());
    EXPECT_NEAR(static_cast<double>(guess.output_bytes) / static_cast<double>(report.output_bytes),
                1.0, 0.1);
    EXPECT_GT(guess.peak_memory_bytes, 0u);
    EXPECT_GT(guess.seconds, 0);
    std::filesystem::remove(o.output);
  }
  EXPECT_NE(refusal([&] {
              QuantizeOptions o = options();
              o.output = o.input;
              estimate(o);
            }),
            "");
}

}  // namespace
}  // namespace spectralquant::pipeline
