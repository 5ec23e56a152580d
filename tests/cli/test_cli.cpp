// The binary as users run it: exit codes and what it prints. What it refuses: test_bad_input.cpp.
#include <nlohmann/json.hpp>

#include "cli_fixture.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST_F(CliTest, WithoutAVerbIsWrongUsage) {
  EXPECT_EQ(run({}).exit_code, 2);
  EXPECT_EQ(run({"quantise"}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel, "--no-such-option"}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel}).exit_code, 2);
}

TEST_F(CliTest, HelpTeaches) {
  for (const auto* verb : {"quantize", "calibrate", "eval", "inspect", "tokenize"}) {
    const Result r = run({verb, "--help"});
    EXPECT_EQ(r.exit_code, 0);
    EXPECT_THAT(r.out, HasSubstr("Usage:"));
    EXPECT_THAT(r.out, HasSubstr("Example"));
    EXPECT_THAT(r.out, testing::Not(HasSubstr("value in {")));  // the parser's own words
  }
  EXPECT_THAT(run({"--help"}).out, HasSubstr("Examples:"));
  EXPECT_THAT(run({"--version"}).out, HasSubstr("spectralquant "));
}

TEST_F(CliTest, PlainQuantizationIsStrict) {
  const Result r = run({"quantize", kModel, "-o", out(), "--method", "plain", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_DOUBLE_EQ(json::parse(r.out)["matrix_bpw"], 4.5);
  EXPECT_FALSE(partial_left());
  const Result strict = run({"inspect", out(), "--strict"});
  EXPECT_EQ(strict.exit_code, 0) << strict.err;
  const Result original = run({"inspect", kModel, "--strict"});
  EXPECT_EQ(original.exit_code, 1);
  EXPECT_THAT(original.out, HasSubstr("blk.0.ffn_up.weight is BF16"));
}

TEST_F(CliTest, TheTypeIsChosen) {
  ASSERT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain", "--type", "q5_k"}).exit_code,
            0);
  const Result r = run({"inspect", out(), "--strict"});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_THAT(r.out, HasSubstr("strict Q5_K: yes"));
  const Result unknown = run({"quantize", kModel, "-o", out(), "--type", "q9_k"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("q6_k"));
}

TEST_F(CliTest, InspectComparesTwoFiles) {
  ASSERT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain"}).exit_code, 0);
  const Result r = run({"inspect", kModel, out()});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("general.file_type"));
  EXPECT_THAT(r.out, HasSubstr("token_embd.weight"));
  EXPECT_TRUE(json::accept(run({"inspect", kModel, out(), "--json"}).out));
}

TEST_F(CliTest, TuningIsReported) {
  const Result r =
      run({"quantize", kModel, "-o", out(), "--method", "imatrix", "--calibration", kSuite,
           "--window", "64", "--max-tokens", "4096", "--tune", "2048", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("on text held aside: the "));
  const auto tuning = json::parse(r.out)["tuning"];
  EXPECT_EQ(tuning["tokens"], 2048);
  EXPECT_EQ(tuning["curve"].size(), tuning["stages"]);
  EXPECT_EQ(tuning["kept"] == "tuned",
            tuning["held_aside_kl"]["tuned"] < tuning["held_aside_kl"]["solved"]);
  EXPECT_EQ(run({"inspect", out(), "--strict"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(out() + ".work"));
}

TEST_F(CliTest, WrongTuningIsWrongUsage) {
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--tune", "-5"}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--effort", "bestest"}).exit_code, 2);
  const Result r = run({"quantize", kModel, "-o", out(), "--method", "plain", "--tune", "100"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, HasSubstr("tuning needs calibration text"));
}

TEST_F(CliTest, ThePlanCountsTuning) {
  const auto plan = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"quantize",      kModel, "-o",        out(),
                                          "--calibration", kSuite, "--dry-run", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result r = run(arguments);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return json::parse(r.out);
  };
  const json standard = plan({"--effort", "standard"}), tuned = plan({"--tune", "1000000"});
  EXPECT_GT(tuned["seconds"], standard["seconds"]);
  // the phase that needs most counts
  EXPECT_GE(tuned["peak_memory_bytes"], standard["peak_memory_bytes"]);
  EXPECT_LT(plan({"--effort", "FAST"})["peak_memory_bytes"],  // as fast, in any case
            standard["peak_memory_bytes"]);
}

TEST_F(CliTest, TheBestOnACpuHasOwnSamplesBesideTexts) {
  const auto tokens = [&](const std::string& effort, std::vector<std::string> words) {
    words.insert(words.begin(),
                 {"quantize", kModel, "--effort", effort, "--dry-run", "--json", "--calibration"});
    const Result r = run(words);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return json::parse(r.out)["calibration_tokens"].get<std::int64_t>();
  };
  EXPECT_EQ(tokens("best", {kSuite}), tokens("standard", {kSuite, "self:131072"}));
  EXPECT_EQ(tokens("best", {kSuite, "self:1024"}), tokens("standard", {kSuite, "self:1024"}));
  EXPECT_LT(tokens("standard", {kSuite}), tokens("best", {kSuite}));
}

TEST_F(CliTest, DryRunWritesNothing) {
  const Result r = run({"quantize", kModel, "-o", out(), "--dry-run", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto plan = json::parse(r.out);
  EXPECT_DOUBLE_EQ(plan["matrix_bpw"], 4.5);
  EXPECT_GT(plan["peak_memory_bytes"], 0);
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(CliTest, EvalPrintsEveryForm) {
  ASSERT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain"}).exit_code, 0);
  const std::vector<std::string> arguments = {
      "eval",       "--reference", kModel, out(), "--suite", "conv=" + kSuite + ":4x128",
      "--baseline", "out"};
  auto as_json = arguments, as_markdown = arguments;
  as_json.push_back("--json");
  as_markdown.push_back("--markdown");
  const Result r = run(as_json);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto table = json::parse(r.out);
  EXPECT_EQ(table["suites"][0]["tokens"], 4 * 127);
  EXPECT_EQ(table["models"][0]["scores"]["conv"]["kld"]["mean"], 0.0);
  const double kld = table["models"][1]["scores"]["conv"]["kld"]["mean"];
  EXPECT_GT(kld, 0.01);
  EXPECT_LT(kld, 0.2);
  EXPECT_TRUE(table["models"][1]["strict"]);
  EXPECT_THAT(run(arguments).out, HasSubstr("same top"));
  EXPECT_THAT(run(as_markdown).out, HasSubstr("| out |"));
  auto as_csv = arguments;
  as_csv.push_back("--csv");
  EXPECT_THAT(run(as_csv).out, HasSubstr("out,conv,4x128,,0,"));
}

TEST_F(CliTest, EvalKeepsItsResultsAndAKilledRunDoesNoHarm) {
  ASSERT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain"}).exit_code, 0);
  const std::vector<std::string> arguments = {"eval",   "--reference", kModel,
                                              out(),    "--suite",     "conv=" + kSuite + ":32x128",
                                              "--json", "--cache",     folder_ / "cache"};
  Process killed(arguments);
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  killed.signal(SIGKILL);
  killed.wait();
  const Result first = run(arguments), second = run(arguments);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("score"));
  EXPECT_THAT(second.err, testing::Not(HasSubstr("score")));
  EXPECT_EQ(second.out, first.out);
  auto anew = arguments;
  anew.erase(anew.end() - 2, anew.end());
  anew.push_back("--no-cache");
  EXPECT_EQ(run(anew).out, first.out);
}

TEST_F(CliTest, EvalTellsALeak) {
  ASSERT_EQ(run({"quantize", kModel, "-o", out(), "--method", "imatrix", "--calibration", kSuite,
                 "--max-tokens", "2048"})
                .exit_code,
            0);
  const Result r = run({"eval", "--reference", kModel, out(), "--suite",
                        "conv=" + kSuite + ":4x128", "--calibration-text", kSuite, "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto result = json::parse(r.out);
  EXPECT_EQ(result["models"][1]["calibration"]["matched"], "hash");
  EXPECT_EQ(result["suites"][0]["label"], "calibrated on");
  EXPECT_EQ(result["alignment"][0]["verdict"], "leaked");
}

TEST_F(CliTest, EvalRefusesWhatMakesNoSense) {
  const std::vector<std::string> arguments = {"eval", "--reference", kModel, "--suite",
                                              "conv=" + kSuite + ":4x128"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), arguments.begin(), arguments.end());
    return run(more);
  };
  EXPECT_EQ(with({"--details"}).exit_code, 2);
  EXPECT_EQ(with({"--json", "--csv"}).exit_code, 2);
  EXPECT_EQ(with({"--baseline", "none"}).exit_code, 2);
  EXPECT_EQ(with({"--control", "none"}).exit_code, 2);
  EXPECT_EQ(with({"--suite", "conv=" + kSuite}).exit_code, 2);  // a name twice
  EXPECT_EQ(with({"--reference-logits", kSuite}).exit_code, 2);
  EXPECT_EQ(run({"eval", kModel, "--suite", "conv=" + kSuite}).exit_code, 2);  // no original
  const Result foreign = run({"eval", "--reference-logits", kSuite, kModel});
  EXPECT_EQ(foreign.exit_code, 3);
  EXPECT_THAT(foreign.err, HasSubstr("holds no predictions of llama-perplexity"));
  EXPECT_EQ(with({"--continue", "0"}).exit_code, 2);
  EXPECT_EQ(with({"--no-cache", "--cache", folder_ / "c"}).exit_code, 2);
  EXPECT_EQ(run({"eval", "--reference", kModel}).exit_code, 2);
}

TEST_F(CliTest, TokenizePrintsIds) {
  write_file(folder_ / "text.txt", "hello world");
  const Result r = run({"tokenize", kModel, folder_ / "text.txt"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(r.out, "[261, 643, 81, 1413]\n");  // llama-tokenize --ids of the same text
}

}  // namespace
}  // namespace spectralquant::test
