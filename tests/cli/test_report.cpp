// report through the real binary, on a real file and its scores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "process.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

const std::string kModel = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";
const std::string kSuite = SQ_SOURCE_DIR "/suites/convergence60.jsonl";

class ReportTest : public testing::Test {
 protected:
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  TemporaryFolder folder_;
};

TEST_F(ReportTest, MakesAPageOfWhatEvalPrints) {
  ASSERT_EQ(run({"quantize", kModel, "-o", at("ours.gguf"), "--method", "plain", "--threads", "1"}).exit_code, 0);
  const Result scored = run({"eval", "--reference", kModel, at("ours.gguf"), "--suite", "conv=" + kSuite + ":2x64", "--json"});
  ASSERT_EQ(scored.exit_code, 0) << scored.err;
  write_file(at("results.json"), scored.out);
  const Result page = run({"report", at("results.json"), "-o", at("report.html"), "--json"});
  ASSERT_EQ(page.exit_code, 0) << page.err;
  const auto html = read_file(at("report.html"));
  EXPECT_THAT(html, StartsWith("<!doctype html>"));
  EXPECT_EQ(json::parse(page.out)["bytes"], html.size());
  EXPECT_FALSE(std::filesystem::exists(at("report.html.partial")));
}

TEST_F(ReportTest, WrongUsage) {
  write_file(at("results.json"), "{}");
  EXPECT_EQ(run({"report"}).exit_code, 2);
  EXPECT_EQ(run({"report", at("results.json")}).exit_code, 2);
}

TEST_F(ReportTest, RefusesAndLeavesNothingBehind) {
  write_file(at("broken.json"), "{\n  \"suites\": [,]\n}");
  const Result broken = run({"report", at("broken.json"), "-o", at("report.html")});
  EXPECT_EQ(broken.exit_code, 3);
  EXPECT_THAT(broken.err, HasSubstr("broken.json, line 2"));
  EXPECT_THAT(broken.err, HasSubstr("fix:"));
  EXPECT_FALSE(std::filesystem::exists(at("report.html")));
  EXPECT_EQ(run({"report", at("missing.json"), "-o", at("report.html")}).exit_code, 3);

  write_file(at("good.json"), R"({"suites": [], "models": []})");
  write_file(at("report.html"), "mine");
  EXPECT_EQ(run({"report", at("good.json"), "-o", at("report.html")}).exit_code, 3);
  EXPECT_EQ(read_file(at("report.html")), "mine");
  EXPECT_EQ(run({"report", at("good.json"), "-o", at("report.html"), "--force"}).exit_code, 0);
  EXPECT_EQ(run({"report", at("good.json"), "-o", at("good.json"), "--force"}).exit_code, 3);
}

}  // namespace
}  // namespace spectralquant::test
