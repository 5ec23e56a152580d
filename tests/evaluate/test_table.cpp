// The table in its three printed forms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "spectralquant/evaluate/table.h"

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

Table make_table(double gap = 0.625) {
  Table table;
  table.suites = {parse_suite("held=held.jsonl"), parse_suite("wiki=wiki.txt:c512")};
  table.suite_tokens = {1234, 33150};
  table.suite_hashes = {"aaaa", "bbbb"};
  table.baseline = "plain";
  Row reference{.name = "model-bf16", .path = "m/model-bf16.gguf", .hash = "r", .file_bpw = 16.01, .matrix_bpw = 16, .mebibytes = 100.5, .scores = {}};
  reference.is_reference = true;
  Score of_reference;
  of_reference.n_tokens = 1234;
  of_reference.loss = {2.5, 2.4, 2.6};
  of_reference.top1_agreement = {1, 1, 1};
  reference.scores = {of_reference, of_reference};
  Row plain{.name = "plain", .path = "m/plain.gguf", .hash = "p", .file_bpw = 4.52, .matrix_bpw = 4.5, .mebibytes = 28.25, .strict = true, .scores = {}};
  plain.is_baseline = true;
  plain.scores = {score_of(2.5625, 0.0625, 0), score_of(2.5625, 0.0625, 0)};
  Row ours{.name = "ours", .path = "m/ours.gguf", .hash = "o", .file_bpw = 4.52, .matrix_bpw = 4.5, .mebibytes = 28.25, .strict = true, .scores = {}};
  ours.scores = {score_of(2.5234, 0.03125, gap), score_of(2.5234, 0.03125, gap)};
  table.rows = {reference, plain, ours};
  return table;
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
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, cell.find_last_not_of(' ') - first + 1));
  }
  return cells;
}

std::size_t width_of(const std::string& line) {
  return static_cast<std::size_t>(std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
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
  EXPECT_EQ(out["suites"][1], (json{{"name", "wiki"}, {"file", "wiki.txt"}, {"protocol", "c512"}, {"tokens", 33150}, {"hash", "bbbb"}}));
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
  EXPECT_EQ(score["loss"], (json{{"mean", 2.5234}, {"low", 2.5234 - 0.01}, {"high", 2.5234 + 0.01}}));
  EXPECT_EQ(score["kld"], (json{{"mean", 0.03125}, {"low", 0.03125 - 0.001}, {"high", 0.03125 + 0.001}}));
  EXPECT_EQ(score["kld_p90"], 0.0625);
  EXPECT_EQ(score["kld_p99"], 5 * 0.03125);
  EXPECT_EQ(score["kld_max"], 0.625);
  EXPECT_EQ(score["same_top"], (json{{"mean", 0.875}, {"low", 0.86}, {"high", 0.89}}));
  EXPECT_EQ(score["rms_delta_p"], 0.0321);
  EXPECT_EQ(score["gap_recovery"], (json{{"mean", 0.625}, {"low", 0.625 - 0.05}, {"high", 0.625 + 0.05}}));
}

TEST(TableTest, JsonHasNullForWhatIsNoNumber) {
  for (const double gap : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const json out = json::parse(to_json(make_table(gap)));
    EXPECT_TRUE(out["models"][2]["scores"]["held"]["gap_recovery"]["mean"].is_null());
  }
}

TEST(TableTest, MarkdownHasTheColumnsItsHeadPromises) {
  const std::string text = to_markdown(make_table());
  EXPECT_EQ(cells_of(line_with(text, "| model |")), (std::vector<std::string>{"model", "BPW", "MiB", "held loss", "KLD", "wiki loss", "KLD"}));
  EXPECT_EQ(cells_of(line_with(text, "| ours")), (std::vector<std::string>{"ours", "4.52", "28.25", "2.5234", "0.0312", "2.5234", "0.0312"}));
  EXPECT_THAT(text, HasSubstr("**held (documents, 1234 tokens)**"));
  EXPECT_THAT(text, HasSubstr("**wiki (c512, 33150 tokens)**"));
  EXPECT_EQ(cells_of(line_with(text, "| model |", 1)), (std::vector<std::string>{"model", "loss", "95 %", "KLD", "95 %", "90 %", "99 %", "max", "RMS Δp",
                                                                             "same top", "gap recovery", "95 %"}));
  EXPECT_EQ(cells_of(line_with(text, "| ours", 1)),
            (std::vector<std::string>{"ours", "2.5234", "2.513–2.533", "0.0312", "0.0302–0.0323", "0.0625", "0.1562", "0.625", "3.21 %", "87.5 %", "62.5 %", "57–68 %"}));
  EXPECT_EQ(cells_of(line_with(text, "| plain", 1))[10], "0 %");
  EXPECT_EQ(cells_of(line_with(text, "| model-bf16 |", 1)),
            (std::vector<std::string>{"model-bf16", "2.5000", "2.400–2.600", "–", "–", "–", "–", "–", "–", "–", "100 %", "–"}));
  std::size_t columns = 0;
  for (const auto& line : lines_of(text)) {  // a head, its rule and its rows are equally wide
    if (line[0] != '|') columns = 0;
    else if (columns == 0) columns = cells_of(line).size();
    else EXPECT_EQ(cells_of(line).size(), columns) << line;
  }
}

TEST(TableTest, WithoutABaselineThereIsNoGapColumn) {
  Table table = make_table();
  table.baseline.clear();
  for (auto& row : table.rows)
    for (auto& score : row.scores) score.has_gap_recovery = row.is_baseline = false;
  for (const auto& text : {to_markdown(table), to_terminal(table, 80, false)}) {
    EXPECT_THAT(text, Not(HasSubstr("gap recovery")));
    EXPECT_THAT(text, Not(HasSubstr("Gap recovery")));
  }
  EXPECT_FALSE(json::parse(to_json(table))["models"][2]["scores"]["held"].contains("gap_recovery"));
}

TEST(TableTest, AMissingGapIsADash) {
  Table missing = make_table();
  missing.rows[2].scores[0].has_gap_recovery = false;
  for (const Table& table : {make_table(std::numeric_limits<double>::quiet_NaN()), make_table(-std::numeric_limits<double>::infinity()), missing}) {
    const auto cells = cells_of(line_with(to_markdown(table), "| ours", 1));
    ASSERT_EQ(cells.size(), 12u);
    EXPECT_EQ(cells[10], "–");
    EXPECT_EQ(cells[11], "–");
    EXPECT_THAT(to_terminal(table, 160, false), Not(HasSubstr("nan")));
  }
}

TEST(TableTest, TheTerminalTableFitsItsWidth) {
  for (const int width : {80, 160}) {
    const std::string text = to_terminal(make_table(), width, false);
    const std::string table = text.substr(0, text.find("\n\nloss:"));
    for (const auto& line : lines_of(table)) EXPECT_LE(width_of(line), static_cast<std::size_t>(width)) << line;
    for (const auto* part : {"model-bf16", "62.5 %", "57–68 %", "2.513–2.533", "0.0312", "87.5 %", "28.25", "wiki (c512, 33150 tokens)"})
      EXPECT_THAT(table, HasSubstr(part));
  }
  EXPECT_LT(lines_of(to_terminal(make_table(), 160, false)).size(), lines_of(to_terminal(make_table(), 80, false)).size());
}

TEST(TableTest, ColumnsOfTheTerminalTableAreAligned) {
  const auto lines = lines_of(to_terminal(make_table(), 160, false));
  ASSERT_GT(lines.size(), 4u);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_EQ(width_of(lines[i]), width_of(lines[0]));
}

TEST(TableTest, ColorIsOnlyThereWhenAskedFor) {
  EXPECT_THAT(to_terminal(make_table(), 80, false), Not(HasSubstr("\x1b")));
  EXPECT_THAT(to_terminal(make_table(), 80, true), HasSubstr("\x1b[1m"));
}

}  // namespace
}  // namespace spectralquant::evaluate
