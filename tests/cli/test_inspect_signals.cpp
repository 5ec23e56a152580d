// inspect --signals as users run it: tables, JSON, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class InspectSignalsTest : public testing::Test {
 protected:
  std::string gather(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"calibrate", kModel,         "-o",
                                          signals_,    "--force",      "--calibration",
                                          kSuite,      "--max-tokens", "1024"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result r = run(arguments);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return signals_;
  }

  TemporaryFolder folder_;
  std::string signals_ = (folder_ / "s.gguf").string();
};

TEST_F(InspectSignalsTest, ShowsSpectraErrorsAndCosts) {
  const std::string signals = gather({"--output-moments"}),
                    plain = (folder_ / "plain.gguf").string();
  const Result spectra = run({"inspect", "--signals", signals, "--top", "5"});
  EXPECT_EQ(spectra.exit_code, 0) << spectra.err;
  EXPECT_THAT(spectra.out, AllOf(HasSubstr("inputs (H)"), HasSubstr("more: --top 0")));
  EXPECT_THAT(run({"inspect", "--signals", signals, "--top", "0"}).out, HasSubstr("as lookup (C)"));
  ASSERT_EQ(run({"quantize", kModel, "-o", plain, "--method", "plain"}).exit_code, 0);
  const Result r = run({"inspect", plain, "--signals", signals, "--reference", kModel, "--measure",
                        kSuite, "--max-tokens", "512", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto out = json::parse(r.out);
  ASSERT_EQ(out["variants"].size(), 2u);
  EXPECT_EQ(out["measured"]["tokens"], 511);
  // The built-in plain rounding is what the plain file holds.
  EXPECT_EQ(out["variants"][0]["predicted_kl"], out["variants"][1]["predicted_kl"]);
  EXPECT_EQ(out["variants"][0]["measured_kl"], out["variants"][1]["measured_kl"]);
  EXPECT_GT(out["variants"][0]["measured_kl"], 0.02);
  EXPECT_GT(out["variants"][0]["rank_correlation"], 0.5);
  EXPECT_EQ(out["matrices"].back()["name"], "token_embd.weight");
  EXPECT_FALSE(out["matrices"].back()["output"]["estimated"]);  // the head's G is a diagonal
}

TEST_F(InspectSignalsTest, RefusesWhatDoesNotBelongTogether) {
  const std::string signals = gather({});
  const Result blind = run({"inspect", "--signals", signals, "--reference", kModel});
  EXPECT_EQ(blind.exit_code, 3);
  EXPECT_THAT(blind.err, AllOf(HasSubstr("no output moments"), HasSubstr("fix:"),
                               HasSubstr("--output-moments")));
  const Result no_signals = run({"inspect", "--signals", kModel});
  EXPECT_EQ(no_signals.exit_code, 3);
  EXPECT_THAT(no_signals.err, HasSubstr("holds no signals"));
  std::string bytes = read_file(kModel);
  bytes[bytes.size() - 1] ^= 1;
  write_file(folder_ / "other.gguf", bytes);
  const Result other =
      run({"inspect", "--signals", signals, "--reference", (folder_ / "other.gguf").string()});
  EXPECT_EQ(other.exit_code, 3);
  EXPECT_THAT(other.err, HasSubstr("signals are of another model"));
}

TEST_F(InspectSignalsTest, WrongUsageIsSaid) {
  EXPECT_EQ(run({"inspect"}).exit_code, 2);
  EXPECT_EQ(run({"inspect", kModel, kModel, kModel}).exit_code, 2);
  EXPECT_EQ(run({"inspect", kModel, "--reference", kModel}).exit_code, 2);
  EXPECT_EQ(run({"inspect", kModel, "--signals", "s.gguf", "--strict"}).exit_code, 2);
  EXPECT_EQ(run({"inspect", kModel, "--signals", "s.gguf"}).exit_code, 2);
  EXPECT_EQ(run({"inspect", "--signals", "s.gguf", "--measure", "self:512"}).exit_code, 2);
}

}  // namespace
}  // namespace spectralquant::test
