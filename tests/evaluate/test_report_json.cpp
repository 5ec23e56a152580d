// What is written as JSON is read again as it was: Markdown made of it is what eval itself prints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/report.h"
#include "spectralquant/evaluate/report_json.h"

namespace spectralquant::evaluate {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

Score score_of(double kld, bool recovers) {
  Score score;
  score.n_tokens = 500;
  score.loss = {3.25 + kld, 3.1 + kld, 3.4 + kld};
  // below the original's for the better file
  score.loss_change = {kld - 0.05, kld - 0.06, kld - 0.04};
  score.kld = {kld, 0.9 * kld, 1.1 * kld};
  score.kld_p90 = 2 * kld, score.kld_p99 = 7 * kld, score.kld_max = 30 * kld;
  score.top1_agreement = {0.91, 0.9, 0.92};
  score.rms_delta_p = 0.0421;
  score.has_gap_recovery = recovers;
  if (recovers)
    score.gap_recovery = kld < 0.03 ? Interval{0.66, 0.6, 0.7} : Interval{kNone, kNone, kNone};
  return score;
}

/// Everything that eval can be asked for, once.
Evaluation everything() {
  Evaluation e;
  auto& table = e.table;
  table.suites = {parse_suite("held=held.jsonl"), parse_suite("wiki=wiki.txt:c512")};
  table.suite_tokens = {500, 800};
  table.suite_units = {12, 4};
  table.suite_hashes = {"a", "b"};
  table.suite_seen = {Seen::kNever, Seen::kSameSource};
  table.baseline = "plain";
  for (const auto& [name, kld] :
       {std::pair{"original", 0.0}, std::pair{"ours", 0.02}, std::pair{"plain", 0.06}}) {
    Row row;
    row.name = name, row.path = std::string(name) + ".gguf", row.hash = "ff";
    row.size_bytes = 2'800'000, row.file_bpw = 4.57, row.matrix_bpw = 4.5;
    row.is_reference = kld == 0, row.is_baseline = row.name == "plain", row.strict = kld != 0;
    row.scores = {score_of(kld, kld != 0), score_of(1.1 * kld, kld != 0)};
    table.rows.push_back(row);
  }
  e.control = "plain";
  e.calibrations.resize(3);
  PairComparison pair;
  pair.loss = {0.01, -0.001, 0.02}, pair.kld = {-0.04, -0.05, -0.03};
  pair.kld_verdict = Verdict::kBetter, pair.resolution = 0.03, pair.tokens_needed = 140000;
  e.pairs = {{0, 1, 2, pair}};
  pair.loss_verdict = Verdict::kWorse, pair.enough = true;
  e.pairs.push_back({1, 2, 1, pair});
  Overlap overlap;
  overlap.calibration = "calibration.jsonl", overlap.suite = "wiki",
  overlap.seen = Seen::kSameSource;
  overlap.shared_ngrams = 0.014, overlap.near_duplicates = 1, overlap.near_duplicate_share = 0.02;
  overlap.matches = {{"wiki.txt:3", "calibration.jsonl:9", 0.62, "The river had risen"}};
  e.overlaps = {overlap};
  overlap.suite = "held", overlap.seen = Seen::kNever, overlap.source_auc = 0.93,
  overlap.has_source_auc = true, overlap.matches.clear();
  e.overlaps.push_back(overlap);
  Alignment alignment;
  alignment.suite = "held", alignment.verdict = "kept", alignment.text = "No sign of alignment.",
  alignment.below_reference = true;
  e.alignments = {{1, {alignment, alignment}}, {2, {alignment}}};
  Evaluation::Written written;
  written.suite = 0, written.row = 1, written.n_prompts = 60, written.prompt_tokens = 64,
  written.n_tokens = 64;
  written.prefixes.identical = 0.3, written.prefixes.agreement = 0.65;
  e.continuations = {written};
  written.row = 2, written.prefixes.median = 8.5;
  e.continuations.push_back(written);
  ChoiceScore choice{{0.41, 0.35, 0.48}, {0.43, 0.37, 0.5}, {0.93, 0.9, 0.96}, 4, 7};
  e.choices = {{"quiz", "quiz.jsonl", "cd", 200, {choice, choice, choice}}};
  return e;
}

/// Markdown of an evaluation that went through JSON.
std::string markdown_of(const json& results) {
  return to_markdown(evaluation_of(parse_results(results.dump(), "results.json"), "results.json"));
}

Error error_of(const json& results) {
  try {
    markdown_of(results);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error was thrown";
  return Error(ErrorCode::kFailed, "");
}

TEST(ReportJsonTest, WhatIsWrittenIsRead) {
  auto e = everything();
  EXPECT_EQ(markdown_of(json::parse(to_json(e))), to_markdown(e));
  // A reference that was stored, a file whose predictions are no numbers, and notes on both.
  e.table.rows[0].is_stored = true;
  for (auto& score : e.table.rows[1].scores) {
    score = Score{};
    score.n_tokens = 500, score.n_not_finite = 3;
    score.loss = score.kld = {kNone, kNone, kNone};
  }
  e.choices[0].scores[1] = {{kNone, kNone, kNone}, {}, {}, 0, 0, 2};
  e.notes = {{"ours", "", "its weights are not finite."}, {"", "held", "letters."}};
  const auto markdown = to_markdown(e);
  EXPECT_EQ(markdown_of(json::parse(to_json(e))), markdown);
  EXPECT_THAT(markdown, HasSubstr("| ours | 4.57 | 2.67 | not finite | not finite |"));
  EXPECT_THAT(markdown, HasSubstr("| original | – | – | 3.2500 |"));
  EXPECT_THAT(markdown, HasSubstr("| ours | not finite | – |"));
  EXPECT_THAT(markdown, HasSubstr("- Note on ours: its weights are not finite.\n"));
  EXPECT_THAT(markdown, HasSubstr("- Note on held: letters.\n"));
}

TEST(ReportJsonTest, EntriesAboutOtherFilesAreRefused) {
  for (const auto& [list, key, what] :
       {std::tuple{"pairs", "a", "model"}, std::tuple{"pairs", "suite", "suite"},
        std::tuple{"alignment", "model", "model"}, std::tuple{"continuations", "suite", "suite"}}) {
    json results = json::parse(to_json(everything()));
    results[list][0][key] = "another";
    const auto error = error_of(results);
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.problem(), HasSubstr(std::string(what) + " \"another\""));
    EXPECT_EQ(error.place(), "results.json");
  }
}

TEST(ReportJsonTest, ValuesOfTheWrongKindAreRefusedWithTheirPath) {
  const auto refused = [](const char* pointer, const json& value) {
    json results = json::parse(to_json(everything()));
    results[json::json_pointer(pointer)] = value;
    return error_of(results).place();
  };
  EXPECT_EQ(refused("/models/2/name", 3), "results.json, /models/2/name");
  EXPECT_EQ(refused("/models/1/scores/held/kld", "low"), "results.json, /models/1/scores/held/kld");
  EXPECT_EQ(refused("/pairs", 3), "results.json, /pairs");
  EXPECT_THAT(error_of({{"format", 2}}).problem(), HasSubstr("newer format"));
  EXPECT_THAT(error_of(json::array()).problem(), HasSubstr("an object was expected"));
}

}  // namespace
}  // namespace spectralquant::evaluate
