// The HTML report as a file: what stands in it, what cannot break out of its data, what is refused.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "sample_results.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/publish/html.h"

namespace spectralquant::publish {
namespace {

using testing::HasSubstr;
using testing::Not;

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

/// The data that a browser would read from the element of this id.
json embedded(const std::string& page, const std::string& id) {
  const std::string open = "<script type=\"application/json\" id=\"" + id + "\">";
  const auto begin = page.find(open) + open.size();
  return json::parse(page.substr(begin, page.find("</script", begin) - begin));
}

json named(const std::string& name) {
  json results = sample_results();
  results["models"][2]["name"] = name;
  return results;
}

TEST(Html, TitleSaysWhatTheFileIs) {
  EXPECT_THAT(
      to_html(source(sample_results()), nullptr),
      HasSubstr(
          "<title>original: 2 quantizations scored on 1 suite – SpectralQuant report</title>"));
}

TEST(Html, HoldsTheFiguresAndOnlyFileNamesOfPaths) {
  const auto page = to_html(source(sample_results()), nullptr);
  const auto results = embedded(page, "results");
  EXPECT_EQ(results["models"][2]["scores"]["held"]["kld"]["mean"], 0.02);
  EXPECT_EQ(results["models"][2]["path"], "ours.gguf");
  EXPECT_EQ(results["suites"][0]["file"], "held.jsonl");
  EXPECT_THAT(page, Not(HasSubstr("/home/someone")));
  EXPECT_TRUE(embedded(page, "spectra").is_null());
}

TEST(Html, LoadsNothing) {
  const std::string page(page_template());
  EXPECT_LT(page.size(), kMaxPageBytes / 3);
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const auto* loading :
       {"<link rel=\"stylesheet", "<script src", "@import", "url(http", "fetch("})
    EXPECT_THAT(page, Not(HasSubstr(loading))) << loading;
  EXPECT_THAT(page, HasSubstr("@observablehq/plot"));  // the licences of what is bundled
}

TEST(Html, NamesCannotEndTheirScript) {
  const std::string name = "</script><script>alert(1)</script><!--";
  json results = named(name);
  results["models"][0]["name"] = "\"><img src=x>&";
  const auto page = to_html(source(results), nullptr);
  EXPECT_EQ(count(page, "</script"), count(std::string(page_template()), "</script"));
  EXPECT_EQ(count(page, "<!--"), count(std::string(page_template()), "<!--"));
  EXPECT_THAT(page, Not(HasSubstr("<img src=x")));
  EXPECT_EQ(embedded(page, "results")["models"][2]["name"], name);
}

TEST(Html, NamesAreNoPlacesToFill) {
  const auto page = to_html(source(named("{{spectra}}{{title}}")), nullptr);
  EXPECT_EQ(embedded(page, "results")["models"][2]["name"], "{{spectra}}{{title}}");
}

TEST(Html, NamesCommandNothing) {
  json results = named("a\x1b[2J\u202eb\nc");
  results["suites"][0]["name"] = "held\x07";
  for (auto& model : results["models"]) model["scores"] = {{"held\x07", score(0.1)}};
  const auto page = to_html(source(results), nullptr);
  EXPECT_EQ(embedded(page, "results")["models"][2]["name"], "a\\x1b[2J\\u202eb\nc");
  EXPECT_EQ(embedded(page, "results")["suites"][0]["name"], "held\\x07");
  EXPECT_TRUE(embedded(page, "results")["models"][2]["scores"].contains("held\\x07"));
}

RC_GTEST_PROP(Html, AnyNameComesBack, ()) {
  const auto name = *rc::gen::container<std::string>(
      rc::gen::elementOf(std::string("<>&\"'\\/{}!-\n\t aZ09\x01\x7f")));
  RC_ASSERT(embedded(to_html(source(named(name)), nullptr), "results")["models"][2]["name"] ==
            printable(name, Breaks::kKept));
}

TEST(Html, BytesThatAreNoTextBecomeReplacementCharacters) {
  const auto page = to_html({R"({"suites":[],"models":[{"name":")"
                             "ab"
                             R"(\ud83d\ude00","path":"x","hash":"y","scores":{}}]})",
                             "r.json"},
                            nullptr);
  EXPECT_EQ(embedded(page, "results")["models"][0]["name"], "ab😀");
  EXPECT_THAT(error_of([] {
                to_html({"{\"suites\":[],\"models\":[{\"name\":\"a\xff\"}]}", "r.json"}, nullptr);
              }).problem(),
              HasSubstr("no JSON"));
}

TEST(Html, TextsToBrowseAreCutUntilThePageIsSmall) {
  json results = sample_results();
  json document = {{"place", "held.jsonl:1"}, {"text", json::array()}, {"kld", json::array()}};
  for (int i = 0; i < 2000; ++i)
    document["text"].push_back(" word" + std::to_string(i)),
        document["kld"].push_back(0.123456789 * i);
  for (int i = 0; i < 20; ++i) {
    results["details"].push_back({{"model", "ours"},
                                  {"suite", "held"},
                                  {"worst", json::array()},
                                  {"documents", json::array()}});
    for (int d = 0; d < 8; ++d) results["details"].back()["documents"].push_back(document);
  }
  const auto page = to_html(source(results), nullptr);
  EXPECT_LT(page.size(), kMaxPageBytes);
  const auto kept = embedded(page, "results")["details"][19]["documents"].size();
  EXPECT_GE(kept, 1u);
  EXPECT_LT(kept, 8u);
}

TEST(Html, TooLargeIsRefused) {
  json results = sample_results();
  results["alignment"].push_back(
      {{"model", "ours"}, {"suite", "held"}, {"text", std::string(kMaxPageBytes, 'x')}});
  const auto error = error_of([&] { to_html(source(results), nullptr); });
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_THAT(error.problem(), HasSubstr("MB"));
  EXPECT_THAT(error.fix(), HasSubstr("fewer"));
}

TEST(Html, SpectraKeepTheirCurvesOnly) {
  const json spectra = {{"variants", json::array()},
                        {"matrices",
                         {{{"name", "blk.0.ffn_up.weight"},
                           {"input", {{"curve", {{1, 2.5}}}, {"eigenvalues", {2.5, 1.5}}}}}}}};
  const Source given{spectra.dump(), "spectra.json"};
  const auto kept = embedded(to_html(source(sample_results()), &given), "spectra");
  EXPECT_EQ(kept["matrices"][0]["input"]["curve"][0][1], 2.5);
  EXPECT_FALSE(kept["matrices"][0]["input"].contains("eigenvalues"));
}

struct Refusal {
  const char* what;
  std::string text, problem, place;
};

std::string edited(const std::function<void(json&)>& edit) {
  json results = sample_results();
  edit(results);
  return results.dump();
}

TEST(Html, WhatIsNoResultIsRefusedWithItsPlace) {
  const std::vector<Refusal> refusals = {
      {"empty", "", "no JSON", "line 1"},
      {"cut", "{\n \"suites\": [,", "no JSON", "line 2, column 13"},
      {"a list", "[]", "an object was expected", "at the top"},
      {"another tool's", "{}", "no list \"suites\"", "at the top"},
      {"no models", edited([](json& r) { r.erase("models"); }), "no list \"models\"", "at the top"},
      {"models no list", edited([](json& r) { r["models"] = 3; }), "must be a list", "/models"},
      {"a model no object", edited([](json& r) { r["models"][1] = "x"; }), "must be an object",
       "/models/1"},
      {"a name no text", edited([](json& r) { r["models"][1]["name"] = 4; }), "must be a text",
       "/models/1/name"},
      {"a size no number", edited([](json& r) { r["models"][1]["file_bpw"] = "big"; }),
       "must be a number", "/models/1/file_bpw"},
      {"scores no object", edited([](json& r) { r["models"][1]["scores"] = json::array(); }),
       "one entry a suite", "/models/1/scores"},
      {"a mean no number",
       edited([](json& r) { r["models"][1]["scores"]["held"]["kld"]["mean"] = "low"; }),
       "must be a number", "/models/1/scores/held/kld/mean"},
      {"an interval no object",
       edited([](json& r) { r["models"][1]["scores"]["held"]["kld"] = 0.1; }),
       "must be an interval", "/models/1/scores/held/kld"},
      {"a pair without names", edited([](json& r) { r["pairs"] = {json::object()}; }),
       "must be a text", "/pairs/0/suite"},
      {"newer", edited([](json& r) { r["format"] = 99; }), "newer format", "results.json"},
  };
  for (const auto& refusal : refusals) {
    const auto error = error_of([&] { to_html({refusal.text, "results.json"}, nullptr); });
    EXPECT_EQ(error.code(), ErrorCode::kBadInput) << refusal.what;
    EXPECT_THAT(error.problem(), HasSubstr(refusal.problem)) << refusal.what;
    EXPECT_THAT(error.place(), HasSubstr(refusal.place)) << refusal.what;
    EXPECT_THAT(error.fix(), HasSubstr("spectralquant")) << refusal.what;
  }
}

TEST(Html, SpectraAreCheckedToo) {
  for (const auto* text : {"", "[]", "{}", R"({"matrices": [{"rows": 2}]})"}) {
    const Source spectra{text, "spectra.json"};
    const auto error = error_of([&] { to_html(source(sample_results()), &spectra); });
    EXPECT_THAT(error.place(), HasSubstr("spectra.json")) << text;
    EXPECT_THAT(error.fix(), HasSubstr("inspect")) << text;
  }
}

TEST(Html, AFileThatIsNotThereIsNamed) {
  const auto error = error_of([] { read_source("no-such-results.json"); });
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_EQ(error.place(), "no-such-results.json");
}

}  // namespace
}  // namespace spectralquant::publish
