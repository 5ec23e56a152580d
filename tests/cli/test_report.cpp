// report and card through the real binary, on a real file and its scores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli_fixture.h"

namespace spectralquant::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

class ReportTest : public testing::Test {
 protected:
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  /// Quantizes without calibration and scores it on a few windows.
  void make_results() {
    ASSERT_EQ(
        run({"quantize", kModel, "-o", at("ours.gguf"), "--method", "plain", "--threads", "1"})
            .exit_code,
        0);
    const Result r = run({"eval", "--reference", kModel, at("ours.gguf"), "--suite",
                          "conv=" + kSuite + ":2x64", "--json"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    write_file(at("results.json"), r.out);
  }

  TemporaryFolder folder_;
};

TEST_F(ReportTest, MakesAPageMarkdownAndACard) {
  make_results();
  const Result page = run({"report", at("results.json"), "-o", at("report.html"), "--json"});
  ASSERT_EQ(page.exit_code, 0) << page.err;
  const auto html = read_file(at("report.html"));
  EXPECT_THAT(html, StartsWith("<!doctype html>"));
  EXPECT_EQ(json::parse(page.out)["bytes"], html.size());
  EXPECT_FALSE(std::filesystem::exists(at("report.html.partial")));

  const Result markdown = run({"report", at("results.json"), "--markdown"});
  EXPECT_EQ(markdown.out, run({"eval", "--reference", kModel, at("ours.gguf"), "--suite",
                               "conv=" + kSuite + ":2x64", "--markdown"})
                              .out);
  EXPECT_THAT(markdown.out, HasSubstr("| ours |"));

  const Result card = run({"card", at("ours.gguf"), "--results", at("results.json")});
  ASSERT_EQ(card.exit_code, 0) << card.err;
  EXPECT_THAT(card.out, StartsWith("---\n"));
  ASSERT_EQ(run({"card", at("ours.gguf"), "--results", at("results.json"), "-o", at("README.md")})
                .exit_code,
            0);
  EXPECT_EQ(read_file(at("README.md")), card.out);
}

TEST_F(ReportTest, TheCommandOfACardMakesTheFileAgain) {
  std::string text;
  for (int i = 0; i < 300; ++i)
    text +=
        "The river had risen in the night, and field " + std::to_string(i) + " was under water.\n";
  write_file(at("some text.txt"), text);
  ASSERT_EQ(run({"quantize", kModel, "-o", at("ours.gguf"), "--method", "imatrix", "--calibration",
                 at("some text.txt"), "self:128", "--window", "64", "--max-tokens", "640", "--seed",
                 "3", "--threads", "1"})
                .exit_code,
            0);
  const Result scored = run({"eval", "--reference", kModel, at("ours.gguf"), "--suite",
                             "conv=" + kSuite + ":2x64", "--json"});
  ASSERT_EQ(scored.exit_code, 0) << scored.err;
  write_file(at("results.json"), scored.out);
  const auto card = run({"card", at("ours.gguf"), "--results", at("results.json")}).out;
  const auto begin = card.find("spectralquant quantize ");
  ASSERT_NE(begin, std::string::npos) << card;
  const std::string command = card.substr(begin, card.find('\n', begin) - begin);

  // As a reader would: beside the original and the text, in another folder.
  std::filesystem::create_directory(at("again"));
  std::filesystem::create_symlink(kModel, at("again/nano-qwen35-bf16.gguf"));
  std::filesystem::copy_file(at("some text.txt"), at("again/some text.txt"));
  const std::string shell = "cd '" + at("again") + "' && " + std::string(SQ_BINARY) +
                            command.substr(std::string("spectralquant").size()) + " --quiet";
  ASSERT_EQ(std::system(shell.c_str()), 0) << shell;
  EXPECT_TRUE(read_file(at("again/ours.gguf")) == read_file(at("ours.gguf"))) << command;
}

TEST_F(ReportTest, HelpTeaches) {
  for (const auto* verb : {"report", "card"})
    EXPECT_THAT(run({verb, "--help"}).out, HasSubstr("Example:"));
}

TEST_F(ReportTest, WrongUsage) {
  write_file(at("results.json"), "{}");
  EXPECT_EQ(run({"report"}).exit_code, 2);
  EXPECT_EQ(run({"report", at("results.json")}).exit_code, 2);
  EXPECT_EQ(
      run({"report", at("results.json"), "--markdown", "--spectra", at("results.json")}).exit_code,
      2);
  EXPECT_EQ(run({"card", at("results.json")}).exit_code, 2);
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
  EXPECT_EQ(run({"card", kModel, "--results", at("good.json")}).exit_code, 3);
}

}  // namespace
}  // namespace spectralquant::test
