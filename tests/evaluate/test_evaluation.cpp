// The whole job: files and texts in, one evaluation out; nothing is computed twice.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "evaluate_fixture.h"
#include "spectralquant/evaluate/report.h"
#include "spectralquant/evaluate/report_json.h"
#include "stored_file.h"

namespace spectralquant::evaluate {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class EvaluationTest : public SuiteFixture {
 protected:
  void SetUp() override {
    std::string lines, other;
    for (int i = 0; i < 6; ++i) {
      lines += fmt::format(
          "{{\"text\": \"the sea of stone runs to a river and the night is long {}\"}}\n", i);
      other += fmt::format("{{\"text\": \"{}\"}}\n", std::string(20, static_cast<char>('0' + i)));
    }
    spew(path("texts.jsonl"), lines);
    spew(path("digits.jsonl"), other);
    spew(path("q.jsonl"),
         "{\"question\": \"the river runs to\", \"choices\": [\"the sea\", \"stone\"], \"answer\": "
         "0}\n"
         "{\"question\": \"of night and\", \"choices\": [\"day\", \"stone\"], \"answer\": 1}\n");
    write("p.gguf", 1, {});
    write("a.gguf", 2, {});
    write("b.gguf", 3, {});
  }
  void write(const std::string& name, std::uint64_t seed,
             std::function<void(gguf::Metadata&)> edit) {
    model::TinyOptions options;
    options.seed = seed;
    options.n_blocks = 1;
    options.edit = [&](gguf::Metadata& metadata, std::vector<model::TinyTensor>&) {
      if (edit) edit(metadata);
    };
    model::write_tiny_qwen35(path(name), options);
  }
  EvaluationRequest request(std::vector<std::string> candidates = {"a.gguf"}) const {
    EvaluationRequest out;
    out.reference = path("p.gguf");
    for (const auto& c : candidates) out.candidates.push_back(path(c));
    out.suites = {parse_suite("texts=" + path("texts.jsonl")),
                  parse_suite("digits=" + path("digits.jsonl") + ":2x8")};
    out.cache_folder = path("cache");
    out.options.bootstrap_samples = 50;
    return out;
  }
  /// What a run has to compute: "phase item" of its reports.
  std::pair<Evaluation, std::set<std::string>> run(const EvaluationRequest& request) {
    std::set<std::string> computed;
    auto result = evaluate(request, [&](const ProgressEvent& e) {
      computed.insert(std::string(e.phase) + " " + std::string(e.item));
    });
    return {std::move(result), computed};
  }
};

TEST_F(EvaluationTest, ANewCandidateIsAllThatIsScored) {
  const auto [first, all] = run(request());
  EXPECT_THAT(all,
              UnorderedElementsAre("run p on texts", "score p on texts", "run p on digits",
                                   "score p on digits", "score a on texts", "score a on digits"));
  const auto [again, nothing] = run(request());
  EXPECT_THAT(nothing, IsEmpty());
  EXPECT_EQ(to_json(again), to_json(first));
  const auto [both, added] = run(request({"b.gguf", "a.gguf"}));
  EXPECT_THAT(added, UnorderedElementsAre("score b on texts", "score b on digits"));
  EXPECT_EQ(both.table.rows.size(), 3u);
  for (std::size_t r = 1; r < 3; ++r) {
    if (both.table.rows[r].name == "a") {
      EXPECT_EQ(both.table.rows[r].scores[0].kld.mean, first.table.rows[1].scores[0].kld.mean);
    }
  }
  EXPECT_EQ(both.cache_problem, "");
}

TEST_F(EvaluationTest, WhatIsKeptIsWhatWouldBeComputed) {
  run(request());
  auto uncached = request();
  uncached.cache_folder.clear();
  EXPECT_EQ(to_json(run(uncached).first), to_json(run(request()).first));
}

TEST_F(EvaluationTest, AFileThatChangedIsScoredAnew) {
  run(request());
  write("a.gguf", 7, {});
  const auto [result, computed] = run(request());
  EXPECT_THAT(computed, UnorderedElementsAre("score a on texts", "score a on digits"));
}

TEST_F(EvaluationTest, AFileThatLlamaCppDoesNotLoadIsNoted) {
  write("a.gguf", 2, [](gguf::Metadata& m) { m.erase("qwen35.context_length"); });
  const auto [result, computed] = run(request({"a.gguf", "b.gguf"}));
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_EQ(result.notes[0].model, "a");
  EXPECT_THAT(result.notes[0].text,
              HasSubstr("does not load this file: metadata key qwen35.context_length is missing."));
}

TEST_F(EvaluationTest, NoDifferenceHasNoSign) {
  std::filesystem::copy_file(path("a.gguf"), path("c.gguf"));
  const auto [result, computed] = run(request({"a.gguf", "c.gguf"}));
  EXPECT_THAT(to_markdown(result), testing::Not(HasSubstr("| -0.0000")));
}

TEST_F(EvaluationTest, PairsAreAllOfThem) {
  const auto [result, computed] = run(request({"a.gguf", "b.gguf", "p.gguf"}));
  EXPECT_EQ(result.pairs.size(), 3u * 2);
  EXPECT_EQ(result.table.rows[0].path, path("p.gguf"));
  EXPECT_TRUE(result.table.rows[0].is_reference);
  bool scored_itself = false;
  for (std::size_t r = 1; r < 4; ++r)
    scored_itself = scored_itself || result.table.rows[r].scores[0].kld.mean == 0;
  EXPECT_TRUE(scored_itself);  // the original is a candidate like any other
}

TEST_F(EvaluationTest, ASuiteThatIsTheCalibrationTextIsCaught) {
  auto with_text = request({"a.gguf", "b.gguf"});
  with_text.calibration_texts = {path("texts.jsonl")};
  write("b.gguf", 3, [](gguf::Metadata& m) {
    m.set("spectralquant.options", gguf::Value::of_string("{}"));
    m.set("spectralquant.calibration", gguf::Value::of_string("self:4096"));
  });
  const auto [result, computed] = run(with_text);
  ASSERT_EQ(result.overlaps.size(), 2u);
  EXPECT_EQ(result.overlaps[0].seen, Seen::kCalibratedOn);
  EXPECT_EQ(result.overlaps[0].near_duplicates, 6);
  EXPECT_EQ(result.overlaps[1].seen, Seen::kNever);
  EXPECT_EQ(result.table.suite_seen[0], Seen::kCalibratedOn);
  const json out = json::parse(to_json(result));
  EXPECT_EQ(out["suites"][0]["label"], "calibrated on");
  EXPECT_EQ(out["alignment"].size(), 4u);
  for (const auto& a : out["alignment"]) {
    const bool leaked = a["model"] == "a" && a["suite"] == "texts";  // b saw its own samples only
    EXPECT_EQ(a["verdict"] == "leaked", leaked) << a.dump();
  }
  EXPECT_THAT(to_terminal(result, 160, false), HasSubstr("calibrated on"));
  EXPECT_THAT(to_markdown(result), HasSubstr("a on texts: leaked."));
}

TEST_F(EvaluationTest, EverythingAskedForIsInTheJson) {
  auto full = request({"a.gguf", "b.gguf"});
  full.choices = {"sense=" + path("q.jsonl")};
  full.suites = {parse_suite("windows=" + path("texts.jsonl") + ":2x70")};
  full.continue_tokens = 4;
  full.details = true;
  full.baseline = "a";
  full.control = "b";
  const auto [result, computed] = run(full);
  EXPECT_TRUE(computed.contains("sample b"));
  const json out = json::parse(to_json(result));
  EXPECT_EQ(out["format"], 1);
  EXPECT_EQ(out["reference"], "p");
  EXPECT_EQ(out["baseline"], "a");
  EXPECT_EQ(out["control"], "b");
  EXPECT_EQ(out["models"][1]["calibration"]["how"], "unknown");
  EXPECT_GT(out["models"][1]["types"]["BF16"], 1000);
  ASSERT_EQ(out["choices"].size(), 1u);
  EXPECT_EQ(out["choices"][0]["questions"], 2);
  EXPECT_EQ(out["choices"][0]["models"].size(), 3u);
  ASSERT_EQ(out["continuations"].size(), 2u);
  EXPECT_EQ(out["continuations"][0]["prompt_tokens"], 64);
  EXPECT_EQ(out["continuations"][0]["curve"][0], (json{0, 1.0}));
  ASSERT_EQ(out["details"].size(), 2u);
  const json& look = out["details"][0];
  EXPECT_EQ(look["histogram"]["edges"].size(), look["histogram"]["counts"].size() + 1);
  EXPECT_TRUE(look["histogram"]["edges"].back().is_null());
  EXPECT_EQ(look["worst"].size(), 40u);
  EXPECT_EQ(look["worst"][0]["reference"]["top"].size(), 5u);
  EXPECT_TRUE(look["worst"][0]["candidate"]["top"][0][0].is_string());
  const json& document = look["documents"][0];
  EXPECT_EQ(document["text"].size(), document["kld"].size());
  EXPECT_EQ(document["text"].size(), document["p_candidate"].size());
  EXPECT_LT(document["alternatives"].back()["index"], document["text"].size());
  EXPECT_THAT(to_markdown(result), HasSubstr("**sense (2 questions)**"));
  EXPECT_THAT(to_markdown(result), HasSubstr("**Greedy continuations of 4 tokens**"));
  const auto [again, nothing] = run(full);
  EXPECT_THAT(nothing, IsEmpty());
  EXPECT_EQ(to_json(again), to_json(result));
}

TEST_F(EvaluationTest, RefusesBeforeAnythingRuns) {
  const auto refused = [&](auto change) {
    auto r = request();
    change(r);
    std::set<std::string> computed;
    const auto message =
        refusal([&] { evaluate(r, [&](const ProgressEvent&) { computed.insert(""); }); });
    EXPECT_THAT(computed, IsEmpty());
    return message;
  };
  EXPECT_THAT(refused([](auto& r) { r.baseline = "c"; }),
              HasSubstr("'c' is none of the candidates"));
  EXPECT_THAT(refused([](auto& r) { r.control = "c"; }), HasSubstr("--control"));
  EXPECT_THAT(refused([&](auto& r) { r.calibration_texts = {path("none.txt")}; }),
              HasSubstr("none.txt"));
  EXPECT_THAT(refused([&](auto& r) { r.choices = {"x=" + path("texts.jsonl")}; }),
              HasSubstr("texts.jsonl:1"));
  EXPECT_THAT(refused([](auto& r) { r.suites.push_back(r.suites[0]); }),
              HasSubstr("suite name 'texts' is given twice"));
  EXPECT_THAT(refused([&](auto& r) { r.candidates.push_back(path("./a.gguf")); }),
              HasSubstr("a.gguf' is given twice"));
  EXPECT_THAT(refused([](auto& r) { r.reference.clear(); }), HasSubstr("no original"));
  EXPECT_THAT(refused([](auto& r) { r.reference_logits = "x"; }), HasSubstr("two originals"));
  write("other.gguf", 4,
        [](gguf::Metadata& m) { m.set("tokenizer.ggml.pre", gguf::Value::of_string("gpt-2")); });
  EXPECT_THAT(refused([&](auto& r) { r.candidates.push_back(path("other.gguf")); }),
              HasSubstr("its tokenizer is not the reference's"));
}

TEST_F(EvaluationTest, FilesOfOneNameHaveNamesOfTheirOwn) {
  for (const auto* folder : {"one", "two"})
    std::filesystem::create_directories(path(folder) + "/gguf");
  write("one/gguf/q.gguf", 2, {});
  write("two/gguf/q.gguf", 3, {});
  auto both = request({"one/gguf/q.gguf", "two/gguf/q.gguf"});
  both.baseline = "two/gguf/q";
  const json out = json::parse(to_json(run(both).first));
  EXPECT_EQ(out["models"][1]["name"], "one/gguf/q");
  EXPECT_EQ(out["models"][2]["name"], "two/gguf/q");
  EXPECT_EQ(out["baseline"], "two/gguf/q");
  both.baseline = "q";
  EXPECT_THAT(refusal([&] { evaluate(both); }), HasSubstr("one/gguf/q, two/gguf/q"));
}

TEST_F(EvaluationTest, OtherIdsOfSpecialTokensAreANote) {
  write("eos.gguf", 2, [](gguf::Metadata& m) {
    m.set("tokenizer.ggml.eos_token_id", gguf::Value::of_u32(model::kTinyEos + 2));
  });
  const auto [same, first] = run(request({"a.gguf"}));
  const auto [result, computed] = run(request({"eos.gguf"}));
  EXPECT_EQ(result.table.rows[1].scores[0].kld.mean, same.table.rows[1].scores[0].kld.mean);
  EXPECT_THAT(to_terminal(result, 160, false),
              HasSubstr("Note on eos: eos_token_id is 258, the reference's is 256."));
  EXPECT_EQ(json::parse(to_json(result))["notes"][0]["model"], "eos");
  EXPECT_THAT(same.notes, IsEmpty());
}

TEST_F(EvaluationTest, LettersOfSpecialTokensAreANote) {
  spew(path("chat.txt"), "<|im_start|>user the sea of stone<|im_end|>");
  auto chat = request();
  chat.suites = {parse_suite("chat=" + path("chat.txt") + ":c8")};
  EXPECT_THAT(to_markdown(run(chat).first),
              HasSubstr("Note on chat: the names of 2 special tokens stand in its plain text"));
  chat.suites = {parse_suite("chat=" + path("chat.txt") + ":c8+special")};
  EXPECT_THAT(run(chat).first.notes, IsEmpty());
}

class NotFiniteTest : public EvaluationTest {
 protected:
  void SetUp() override {
    EvaluationTest::SetUp();
    write_bad("bad.gguf", "blk.0.ffn_down.weight");
  }
  void write_bad(const std::string& name, const std::string& tensor) {
    model::TinyOptions options;
    options.n_blocks = 1;
    options.edit = [&](gguf::Metadata&, std::vector<model::TinyTensor>& tensors) {
      for (auto& t : tensors)
        if (t.name == tensor) t.values[3] = std::numeric_limits<float>::infinity();
    };
    model::write_tiny_qwen35(path(name), options);
  }
};

TEST_F(NotFiniteTest, TheRowSaysSoAndTheOthersAreFine) {
  auto full = request({"a.gguf", "bad.gguf", "b.gguf"});
  full.baseline = "b";
  full.choices = {"sense=" + path("q.jsonl")};
  full.calibration_texts = {path("texts.jsonl")};
  full.suites.push_back(parse_suite("windows=" + path("texts.jsonl") + ":2x70"));
  full.continue_tokens = 4;
  full.details = true;
  const auto [result, computed] = run(full);
  const auto text = to_json(result);
  const json out = json::parse(text);
  EXPECT_THAT(text, testing::Not(HasSubstr("NaN")));
  for (const auto& m : out["models"]) {
    const bool bad = m["name"] == "bad";
    const auto& score = m["scores"]["texts"];
    EXPECT_EQ(score["not_finite"].get<int>() > 0, bad);
    EXPECT_EQ(score["loss"]["mean"].is_null(), bad);
    EXPECT_EQ(score["same_top"]["mean"].is_null(), bad);
    EXPECT_EQ(score["kld_max"].is_null(), bad);
  }
  for (const auto* list : {"pairs", "alignment", "continuations", "details"}) {
    EXPECT_FALSE(out[list].empty()) << list;
    EXPECT_THAT(out[list].dump(), testing::Not(HasSubstr("bad"))) << list;
  }
  EXPECT_TRUE(out["choices"][0]["models"][1]["accuracy"].contains("mean"));
  const auto table = to_terminal(result, 200, false);
  EXPECT_THAT(table, HasSubstr("not finite"));
  EXPECT_THAT(table, HasSubstr("Note on bad: its weights are not finite: blk.0.ffn_down.weight "
                               "holds an infinity at row 0, column 3."));
  EXPECT_EQ(to_json(run(full).first), text);  // from the cache, too
}

TEST_F(NotFiniteTest, AnOriginalOfThatKindIsRefused) {
  auto bad = request();
  bad.reference = path("bad.gguf");
  EXPECT_THAT(refusal([&] { evaluate(bad); }),
              HasSubstr("the original's predictions are not finite"));
}

/// An original that is not there, and what llama-perplexity would have stored of it: every token
/// equally likely.
class StoredReferenceTest : public EvaluationTest {
 protected:
  void SetUp() override {
    EvaluationTest::SetUp();
    std::vector<std::vector<std::int32_t>> tokens(3, std::vector<std::int32_t>(16));
    for (std::size_t w = 0; w < 3; ++w)
      for (std::size_t t = 0; t < 16; ++t) tokens[w][t] = static_cast<std::int32_t>(7 * w + t);
    spew(path("base.kld"),
         stored_bytes(tokens, {3, std::vector(7, std::vector<float>(model::kTinyVocab, 1.5f))}));
  }
  EvaluationRequest stored(std::vector<std::string> candidates) const {
    auto out = request(std::move(candidates));
    out.reference.clear();
    out.suites.clear();
    out.reference_logits = path("base.kld");
    return out;
  }
};

TEST_F(StoredReferenceTest, StandsForTheOriginal) {
  auto two = stored({"a.gguf", "b.gguf"});
  two.baseline = "b";
  two.calibration_texts = {path("digits.jsonl")};
  const auto [result, computed] = run(two);
  EXPECT_THAT(computed, UnorderedElementsAre("score a on base.kld", "score b on base.kld"));
  ASSERT_EQ(result.table.rows.size(), 3u);
  EXPECT_TRUE(result.table.rows[0].is_stored);
  EXPECT_NEAR(result.table.rows[0].scores[0].loss.mean, std::log(model::kTinyVocab), 1e-4);
  EXPECT_GT(result.table.rows[1].scores[0].kld.mean, 0);
  const json out = json::parse(to_json(result));
  EXPECT_EQ(out["models"][0]["stored"], true);
  EXPECT_TRUE(out["models"][0]["bytes"].is_null());
  EXPECT_EQ(out["suites"][0]["protocol"], "c16");
  EXPECT_EQ(out["suites"][0]["units"], 3);
  EXPECT_THAT(to_terminal(result, 200, false), HasSubstr("16 bits"));
  EXPECT_THAT(run(two).second, IsEmpty());
}

TEST_F(StoredReferenceTest, WhatNeedsTheOriginalIsRefused) {
  const auto refused = [&](auto change) {
    auto r = stored({"a.gguf"});
    change(r);
    return refusal([&] { evaluate(r); });
  };
  EXPECT_THAT(refused([&](auto& r) { r.suites = request().suites; }), HasSubstr("--suite"));
  EXPECT_THAT(refused([&](auto& r) { r.choices = {"x=" + path("q.jsonl")}; }),
              HasSubstr("--choices"));
  EXPECT_THAT(refused([](auto& r) { r.continue_tokens = 4; }), HasSubstr("--continue"));
  EXPECT_THAT(refused([](auto& r) { r.details = true; }), HasSubstr("--details"));
  EXPECT_THAT(refused([](auto& r) { r.candidates.clear(); }), HasSubstr("no file to score"));
}

}  // namespace
}  // namespace spectralquant::evaluate
