// The binary as users run it: exit codes, messages, files left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "process.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kModel = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";
const std::string kSuite = SQ_SOURCE_DIR "/suites/convergence60.jsonl";

class CliTest : public testing::Test {
 protected:
  std::string out() const { return (folder_ / "out.gguf").string(); }
  bool partial_left() const { return std::filesystem::exists(out() + ".partial"); }

  /// Refused: exit 3, the message holds `problem`, names a fix, and no output file is left.
  void expect_refused(const std::vector<std::string>& arguments, const std::string& problem) {
    const Result r = run(arguments);
    EXPECT_EQ(r.exit_code, 3) << r.err;
    EXPECT_THAT(r.err, HasSubstr(problem));
    EXPECT_THAT(r.err, HasSubstr("fix:"));
    EXPECT_EQ(r.out, "");
    EXPECT_FALSE(std::filesystem::exists(out()));
    EXPECT_FALSE(partial_left());
  }

  /// A copy of the model with the first occurrence of `from` replaced by `to` (same length).
  std::string patched(const std::string& from, const std::string& to) {
    std::string bytes = read_file(kModel);
    const auto at = bytes.find(from);
    EXPECT_NE(at, std::string::npos);
    EXPECT_EQ(from.size(), to.size());
    bytes.replace(at, to.size(), to);
    write_file(folder_ / "patched.gguf", bytes);
    return folder_ / "patched.gguf";
  }

  TemporaryFolder folder_;
};

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

TEST_F(CliTest, InspectComparesTwoFiles) {
  ASSERT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain"}).exit_code, 0);
  const Result r = run({"inspect", kModel, out()});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("general.file_type"));
  EXPECT_THAT(r.out, HasSubstr("token_embd.weight"));
  EXPECT_TRUE(json::accept(run({"inspect", kModel, out(), "--json"}).out));
}

TEST_F(CliTest, TuningIsReported) {
  const Result r = run({"quantize", kModel, "-o", out(), "--method", "imatrix", "--calibration", kSuite, "--window", "64", "--max-tokens", "4096", "--tune", "2048",
                        "--tune-batch", "512", "--tune-rate", "2", "--tune-own", "0", "--tune-clip", "0.3", "--tune-damping", "1", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("on text held aside"));
  const auto tuning = json::parse(r.out)["tuning"];
  EXPECT_EQ(tuning["steps"], 4);
  EXPECT_EQ(tuning["tokens"], 2048);
  EXPECT_LE(tuning["held_aside_kl"]["end"], tuning["held_aside_kl"]["start"]);
  EXPECT_EQ(run({"inspect", out(), "--strict"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(out() + ".work"));
}

TEST_F(CliTest, WrongTuningIsWrongUsage) {
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--tune", "-5"}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--tune", "100", "--tune-clip", "0.7"}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--tune", "100", "--tune-damping", "-1"}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--start", kModel}).exit_code, 2);
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--effort", "bestest"}).exit_code, 2);
  const Result r = run({"quantize", kModel, "-o", out(), "--method", "plain", "--tune", "100"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, HasSubstr("tuning needs calibration text"));
}

TEST_F(CliTest, BestEffortTunes) {
  const auto memory = [&](const char* effort) {
    const Result r = run({"quantize", kModel, "-o", out(), "--calibration", kSuite, "--effort", effort, "--dry-run", "--json"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return json::parse(r.out)["peak_memory_bytes"].get<double>();
  };
  EXPECT_GT(memory("best"), memory("standard"));
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
  const std::vector<std::string> arguments = {"eval", "--reference", kModel, out(), "--suite", "conv=" + kSuite + ":4x128", "--baseline", "out"};
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
}

TEST_F(CliTest, RefusesFilesThatAreNoModels) {
  write_file(folder_ / "text.gguf", "this is a text, not a model");
  expect_refused({"quantize", folder_ / "text.gguf", "-o", out(), "--method", "plain"}, "GGUF");
  expect_refused({"quantize", folder_ / "missing.gguf", "-o", out(), "--method", "plain"}, "missing.gguf");
  write_file(folder_ / "cut.gguf", read_file(kModel).substr(0, 5'000'000));
  expect_refused({"quantize", folder_ / "cut.gguf", "-o", out(), "--method", "plain"}, "cut.gguf");
  expect_refused({"quantize", patched("qwen35", "qwen99"), "-o", out(), "--calibration", kSuite}, "qwen99");
}

TEST_F(CliTest, RefusesAnUnknownPreTokenizer) {
  std::string bytes = read_file(kModel);
  const auto key = bytes.find("tokenizer.ggml.pre");
  const auto at = bytes.find("qwen35", key);
  bytes.replace(at, 6, "qwen77");
  write_file(folder_ / "pre.gguf", bytes);
  expect_refused({"quantize", folder_ / "pre.gguf", "-o", out(), "--calibration", kSuite}, "qwen77");
}

TEST_F(CliTest, RefusesNotANumberAndSaysWhere) {
  std::string bytes = read_file(kModel);
  for (std::size_t i = bytes.size() - 64; i < bytes.size() - 32; ++i) bytes[i] = '\xff';  // 0xffff is a NaN in BF16, 0xffffffff in F32
  write_file(folder_ / "nan.gguf", bytes);
  expect_refused({"quantize", folder_ / "nan.gguf", "-o", out(), "--method", "plain"}, "NaN");
}

TEST_F(CliTest, RefusesToOverwrite) {
  write_file(out(), "precious");
  const Result r = run({"quantize", kModel, "-o", out(), "--method", "plain"});
  EXPECT_EQ(r.exit_code, 3);
  EXPECT_THAT(r.err, HasSubstr("--force"));
  EXPECT_EQ(read_file(out()), "precious");
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain", "--force"}).exit_code, 0);
  std::filesystem::copy(kModel, folder_ / "in.gguf");
  const Result same = run({"quantize", folder_ / "in.gguf", "-o", folder_ / "in.gguf", "--method", "plain", "--force"});
  EXPECT_EQ(same.exit_code, 3);
  EXPECT_EQ(read_file(folder_ / "in.gguf"), read_file(kModel));
}

TEST_F(CliTest, RefusesUnusableCalibrationText) {
  write_file(folder_ / "empty.txt", "");
  write_file(folder_ / "short.txt", "too short");
  write_file(folder_ / "binary.txt", std::string("\0\1\2\3", 4) + std::string(5000, '\xfe'));
  write_file(folder_ / "broken.jsonl", "{\"text\": \"fine\"}\n{\"txt\": 1}\n");
  for (const auto* name : {"empty.txt", "short.txt", "binary.txt", "none*.txt"})
    expect_refused({"quantize", kModel, "-o", out(), "--calibration", folder_ / name}, "");
  expect_refused({"quantize", kModel, "-o", out(), "--calibration", folder_ / "broken.jsonl"}, "broken.jsonl:2");
}

TEST_F(CliTest, RefusesSignalsOfAnotherModel) {
  ASSERT_EQ(run({"calibrate", kModel, "-o", folder_ / "signals.gguf", "--calibration", kSuite, "--max-tokens", "2048"}).exit_code, 0);
  // The same file with one matrix renamed is a model that these signals do not fit.
  const Result r = run({"quantize", kModel, "-o", out(), "--signals", kModel});
  EXPECT_EQ(r.exit_code, 3) << r.err;
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(CliTest, FullDiskLeavesNothing) {
  const Result r = Process({"quantize", kModel, "-o", out(), "--method", "plain"}, 1'000'000).wait();
  EXPECT_EQ(r.exit_code, 1) << r.err;
  EXPECT_THAT(r.err, HasSubstr("fix:"));
  EXPECT_FALSE(std::filesystem::exists(out()));
  EXPECT_FALSE(partial_left());
}

TEST_F(CliTest, KilledHalfWayKeepsTheOldFile) {
  write_file(out(), "precious");
  Process process({"quantize", kModel, "-o", out(), "--calibration", kSuite, "--force"});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  process.signal(SIGKILL);
  process.wait();
  EXPECT_EQ(read_file(out()), "precious");
  EXPECT_EQ(run({"quantize", kModel, "-o", out(), "--method", "plain", "--force"}).exit_code, 0);
  EXPECT_FALSE(partial_left());
}

TEST_F(CliTest, InterruptedRemovesThePartialFile) {
  Process process({"quantize", kModel, "-o", out(), "--calibration", kSuite});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  process.signal(SIGINT);
  EXPECT_EQ(process.wait().exit_code, 130);
  EXPECT_FALSE(partial_left());
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(CliTest, TokenizePrintsIds) {
  write_file(folder_ / "text.txt", "hello world");
  const Result r = run({"tokenize", kModel, folder_ / "text.txt"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(r.out, "[261, 643, 81, 1413]\n");  // llama-tokenize --ids of the same text
}

}  // namespace
}  // namespace spectralquant::test
