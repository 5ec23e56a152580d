// The evaluation in its printed forms: terminal, Markdown, CSV, JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "spectralquant/core/printable.h"
#include "spectralquant/evaluate/report.h"
#include "spectralquant/evaluate/report_json.h"

namespace spectralquant::evaluate {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

Score score_of(double loss, double kld, double gap) {
  Score s;
  s.n_tokens = 1234;
  s.loss = {loss, loss - 0.01, loss + 0.01};
  s.kld = {kld, kld - 0.001, kld + 0.001};
  s.kld_p90 = 2 * kld;
  s.kld_p99 = 5 * kld;
  s.kld_max = 20 * kld;
  s.top1_agreement = {0.875, 0.86, 0.89};
  s.rms_delta_p = 0.0321;
  s.gap_recovery = {gap, gap - 0.05, gap + 0.05};
  s.has_gap_recovery = true;
  return s;
}

Evaluation make_table(double gap = 0.625) {
  Evaluation evaluation;
  Table& table = evaluation.table;
  table.suites = {parse_suite("held=held.jsonl"), parse_suite("wiki=wiki.txt:c512")};
  table.suite_tokens = {1234, 33150};
  table.suite_units = {120, 129};
  table.suite_hashes = {"aaaa", "bbbb"};
  table.suite_seen = {std::nullopt, Seen::kNever};
  table.baseline = "plain";
  Row reference{.name = "model-bf16",
                .path = "m/model-bf16.gguf",
                .hash = "r",
                .size_bytes = 105381888,
                .file_bpw = 16.01,
                .matrix_bpw = 16,
                .types = {},
                .scores = {}};
  reference.is_reference = true;
  Score of_reference;
  of_reference.n_tokens = 1234;
  of_reference.loss = {2.5, 2.4, 2.6};
  of_reference.top1_agreement = {1, 1, 1};
  reference.scores = {of_reference, of_reference};
  Row plain{.name = "plain",
            .path = "m/plain.gguf",
            .hash = "p",
            .size_bytes = 29622272,
            .file_bpw = 4.52,
            .matrix_bpw = 4.5,
            .types = {{"Q4_K", 4718592}},
            .strict = true,
            .scores = {}};
  plain.is_baseline = true;
  plain.scores = {score_of(2.5625, 0.0625, 0), score_of(2.5625, 0.0625, 0)};
  Row ours{.name = "ours",
           .path = "m/ours.gguf",
           .hash = "o",
           .size_bytes = 29622272,
           .file_bpw = 4.52,
           .matrix_bpw = 4.5,
           .types = {{"Q4_K", 4718592}},
           .strict = true,
           .scores = {}};
  ours.scores = {score_of(2.5234, 0.03125, gap), score_of(2.5234, 0.03125, gap)};
  table.rows = {reference, plain, ours};
  evaluation.calibrations.resize(3);
  return evaluation;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// Cells of a Markdown line, blanks around them left out.
std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream stream(line.substr(1));
  for (std::string cell; std::getline(stream, cell, '|');) {
    const auto first = cell.find_first_not_of(' ');
    cells.push_back(first == std::string::npos
                        ? ""
                        : cell.substr(first, cell.find_last_not_of(' ') - first + 1));
  }
  return cells;
}

std::size_t width_of(const std::string& line) {
  return static_cast<std::size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string line_with(const std::string& text, const std::string& part, std::size_t which = 0) {
  for (const auto& line : lines_of(text))
    if (line.find(part) != std::string::npos && which-- == 0) return line;
  return "|";
}

TEST(TableTest, JsonHoldsEveryFigure) {
  const json out = json::parse(to_json(make_table()));
  EXPECT_EQ(out["baseline"], "plain");
  ASSERT_EQ(out["suites"].size(), 2u);
  EXPECT_EQ(out["suites"][1], (json{{"name", "wiki"},
                                    {"file", "wiki.txt"},
                                    {"protocol", "c512"},
                                    {"tokens", 33150},
                                    {"units", 129},
                                    {"unit", "window"},
                                    {"hash", "bbbb"},
                                    {"label", "never seen"}}));
  EXPECT_TRUE(out["suites"][0]["label"].is_null());
  ASSERT_EQ(out["models"].size(), 3u);
  const json& reference = out["models"][0];
  EXPECT_EQ(reference["reference"], true);
  EXPECT_EQ(reference["strict"], false);
  EXPECT_FALSE(reference["scores"]["held"].contains("gap_recovery"));
  const json& ours = out["models"][2];
  EXPECT_EQ(ours["name"], "ours");
  EXPECT_EQ(ours["path"], "m/ours.gguf");
  EXPECT_EQ(ours["hash"], "o");
  EXPECT_EQ(ours["file_bpw"], 4.52);
  EXPECT_EQ(ours["matrix_bpw"], 4.5);
  EXPECT_EQ(ours["mebibytes"], 28.25);
  EXPECT_EQ(ours["strict"], true);
  const json& score = ours["scores"]["wiki"];
  EXPECT_EQ(score["tokens"], 1234);
  EXPECT_EQ(score["loss"],
            (json{{"mean", 2.5234}, {"low", 2.5234 - 0.01}, {"high", 2.5234 + 0.01}}));
  EXPECT_EQ(score["kld"],
            (json{{"mean", 0.03125}, {"low", 0.03125 - 0.001}, {"high", 0.03125 + 0.001}}));
  EXPECT_EQ(score["kld_p90"], 0.0625);
  EXPECT_EQ(score["kld_p99"], 5 * 0.03125);
  EXPECT_EQ(score["kld_max"], 0.625);
  EXPECT_EQ(score["same_top"], (json{{"mean", 0.875}, {"low", 0.86}, {"high", 0.89}}));
  EXPECT_EQ(score["rms_delta_p"], 0.0321);
  EXPECT_EQ(score["gap_recovery"],
            (json{{"mean", 0.625}, {"low", 0.625 - 0.05}, {"high", 0.625 + 0.05}}));
}

TEST(TableTest, JsonHasNullForWhatIsNoNumber) {
  for (const double gap :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const json out = json::parse(to_json(make_table(gap)));
    EXPECT_TRUE(out["models"][2]["scores"]["held"]["gap_recovery"]["mean"].is_null());
  }
}

TEST(TableTest, MarkdownHasTheColumnsItsHeadPromises) {
  const std::string text = to_markdown(make_table());
  EXPECT_EQ(
      cells_of(line_with(text, "| model |")),
      (std::vector<std::string>{"model", "BPW", "MiB", "held loss", "KLD", "wiki loss", "KLD"}));
  EXPECT_EQ(cells_of(line_with(text, "| ours")),
            (std::vector<std::string>{"ours", "4.52", "28.25", "**2.5234**", "**0.0312**",
                                      "**2.5234**", "**0.0312**"}));
  EXPECT_THAT(text, HasSubstr("**held (documents, 1234 tokens)**"));
  EXPECT_THAT(text, HasSubstr("**wiki (c512, 33150 tokens, never seen)**"));
  EXPECT_EQ(
      cells_of(line_with(text, "| model |", 1)),
      (std::vector<std::string>{"model", "BPW", "MiB", "loss", "95 %", "KLD", "95 %", "90 %",
                                "99 %", "max", "RMS Δp", "same top", "gap recovery", "95 %"}));
  EXPECT_EQ(cells_of(line_with(text, "| ours", 1)),
            (std::vector<std::string>{"ours", "4.52", "28.25", "**2.5234**", "2.513–2.533",
                                      "**0.0312**", "0.0302–0.0323", "**0.0625**", "**0.1562**",
                                      "**0.625**", "3.21 %", "87.5 %", "**62.5 %**", "57–68 %"}));
  EXPECT_EQ(cells_of(line_with(text, "| plain", 1))[12], "0 %");
  EXPECT_EQ(cells_of(line_with(text, "| model-bf16 |", 1)),
            (std::vector<std::string>{"model-bf16", "16.01", "100.50", "2.5000", "2.400–2.600", "–",
                                      "–", "–", "–", "–", "–", "–", "100 %", "–"}));
  std::size_t columns = 0;
  for (const auto& line : lines_of(text)) {  // a head, its rule and its rows are equally wide
    if (line[0] != '|')
      columns = 0;
    else if (columns == 0)
      columns = cells_of(line).size();
    else
      EXPECT_EQ(cells_of(line).size(), columns) << line;
  }
}

TEST(TableTest, WithoutABaselineThereIsNoGapColumn) {
  Evaluation table = make_table();
  table.table.baseline.clear();
  for (auto& row : table.table.rows)
    for (auto& score : row.scores) score.has_gap_recovery = row.is_baseline = false;
  for (const auto& text : {to_markdown(table), to_terminal(table, 80, false)}) {
    EXPECT_THAT(text, Not(HasSubstr("gap recovery")));
    EXPECT_THAT(text, Not(HasSubstr("Gap recovery")));
  }
  EXPECT_FALSE(json::parse(to_json(table))["models"][2]["scores"]["held"].contains("gap_recovery"));
}

TEST(TableTest, AMissingGapIsADash) {
  Evaluation missing = make_table();
  missing.table.rows[2].scores[0].has_gap_recovery = false;
  const Evaluation undefined = make_table(std::numeric_limits<double>::quiet_NaN()),
                   infinite = make_table(-std::numeric_limits<double>::infinity());
  for (const Evaluation* each : {&undefined, &infinite, static_cast<const Evaluation*>(&missing)}) {
    const Evaluation& table = *each;
    const auto cells = cells_of(line_with(to_markdown(table), "| ours", 1));
    ASSERT_EQ(cells.size(), 14u);
    EXPECT_EQ(cells[12], "–");
    EXPECT_EQ(cells[13], "–");
    EXPECT_THAT(to_terminal(table, 160, false), Not(HasSubstr("nan")));
  }
}

TEST(TableTest, TheTerminalTableFitsItsWidth) {
  for (const int width : {80, 160}) {
    const std::string text = to_terminal(make_table(), width, false);
    const std::string table = text.substr(0, text.find("\n\n* best"));
    for (const auto& line : lines_of(table))
      EXPECT_LE(width_of(line), static_cast<std::size_t>(width)) << line;
    for (const auto* part : {"model-bf16", "62.5 %", "57–68 %", "2.513–2.533", "0.0312", "87.5 %",
                             "28.25", "wiki (c512, 33150 tokens, never seen)"})
      EXPECT_THAT(table, HasSubstr(part));
  }
  EXPECT_LT(lines_of(to_terminal(make_table(), 160, false)).size(),
            lines_of(to_terminal(make_table(), 80, false)).size());
}

TEST(TableTest, FiguresOfTheTerminalTableStandUnderOneAnother) {
  const auto lines = lines_of(to_terminal(make_table(), 160, false));
  ASSERT_GT(lines.size(), 4u);
  std::vector<std::size_t> points;
  // of BPW
  for (std::size_t i = 1; i < 4; ++i) points.push_back(lines[i].find('.', lines[i].find("  ")));
  EXPECT_THAT(points, testing::Each(points[0]));
  EXPECT_THAT(lines[3], HasSubstr("0.0312*"));
  EXPECT_THAT(lines[2], Not(HasSubstr("*")));
}

TEST(TableTest, TheReferenceComesFirstThenTheSmaller) {
  Row reference{.name = "r", .path = {}, .hash = {}, .size_bytes = 900, .types = {}, .scores = {}};
  reference.is_reference = true;
  const Row small{.name = "b", .path = {}, .hash = {}, .size_bytes = 10, .types = {}, .scores = {}};
  Row large = small, named = small;
  large.size_bytes = 20;
  named.name = "a";
  EXPECT_TRUE(comes_before(reference, small));
  EXPECT_TRUE(comes_before(small, large));
  EXPECT_FALSE(comes_before(large, small));
  EXPECT_TRUE(comes_before(named, small));
  EXPECT_FALSE(comes_before(small, small));
}

TEST(TableTest, OneCandidateIsNotTheBest) {
  Evaluation evaluation = make_table();
  EXPECT_EQ(best_row(evaluation.table, 0, ranked_columns()[1]), 2u);
  evaluation.table.rows.pop_back();
  EXPECT_EQ(best_row(evaluation.table, 0, ranked_columns()[1]), std::nullopt);
}

TEST(TableTest, ALossBelowTheOriginalsIsMarked) {
  Evaluation evaluation = make_table();
  EXPECT_THAT(to_markdown(evaluation), Not(HasSubstr("↓")));
  evaluation.table.rows[2].scores[0].loss_change = {-0.02, -0.03, -0.01};
  EXPECT_THAT(to_markdown(evaluation), HasSubstr("2.5234↓"));
  EXPECT_THAT(to_markdown(evaluation), HasSubstr("below the original's loss"));
}

TEST(TableTest, CsvHasOneLineAModelAndSuite) {
  Evaluation evaluation = make_table();
  evaluation.table.rows[2].name = "ours, \"best\"";
  const auto lines = lines_of(to_csv(evaluation));
  ASSERT_EQ(lines.size(), 1u + 3 * 2);
  const auto n_columns = std::count(lines[0].begin(), lines[0].end(), ',');
  for (std::size_t i = 1; i < 5; ++i)
    EXPECT_EQ(std::count(lines[i].begin(), lines[i].end(), ','), n_columns) << lines[i];
  EXPECT_THAT(
      lines[1],
      HasSubstr("model-bf16,held,documents,,1,105381888,100.5,16.01,16,1234,2.5,2.4,2.6,,,,"));
  EXPECT_THAT(
      lines[6],
      HasSubstr(
          "\"ours, \"\"best\"\"\",wiki,c512,never seen,0,29622272,28.25,4.52,4.5,1234,2.5234,"));
}

TEST(TableTest, ColorIsOnlyThereWhenAskedFor) {
  EXPECT_THAT(to_terminal(make_table(), 80, false), Not(HasSubstr("\x1b")));
  EXPECT_THAT(to_terminal(make_table(), 80, true), HasSubstr("\x1b[1m"));
}

TEST(Report, NamesCommandNothing) {
  auto evaluation = make_table();
  evaluation.table.rows[1].name = evaluation.table.baseline = "a\x1b]0;t\x07|b\n| c <img>";
  evaluation.table.suites[0].name = "held\u202e[x](y)";
  for (const auto& text : {to_terminal(evaluation, 200, false), to_markdown(evaluation)}) {
    EXPECT_EQ(printable(text, Breaks::kKept), text);
    EXPECT_THAT(text, HasSubstr("held\\"));
  }
  EXPECT_THAT(to_terminal(evaluation, 200, false), HasSubstr("a\\x1b]0;t\\x07|b\\n| c <img>"));
  EXPECT_THAT(to_markdown(evaluation), HasSubstr("a\\\\x1b\\]0;t\\\\x07\\|b\\\\n\\| c \\<img\\>"));
  EXPECT_THAT(to_markdown(evaluation), HasSubstr("\\[x\\](y)"));
  EXPECT_THAT(to_csv(evaluation), HasSubstr("\na\\x1b]0;t\\x07|b\\n| c <img>,"));
}

}  // namespace
}  // namespace spectralquant::evaluate
