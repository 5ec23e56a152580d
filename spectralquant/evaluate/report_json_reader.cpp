// Eval's JSON, read again. Kept beside its writer, report_json.cpp.

#include <fmt/format.h>

#include <limits>
#include <optional>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/json_check.h"
#include "spectralquant/evaluate/report_json.h"

namespace spectralquant::evaluate {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;  // the highest "format" whose fields are known here
constexpr const char* kMakeResults = "give the output of: spectralquant eval ... --json";

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// null, as JSON writes what is no number, is NaN again.
double number(const json& parent, const char* key) {
  const auto found = parent.find(key);
  return found != parent.end() && found->is_number() ? found->get<double>() : kNone;
}

std::int64_t count(const json& parent, const char* key) {
  const auto found = parent.find(key);
  return found != parent.end() && found->is_number() ? found->get<std::int64_t>() : 0;
}

std::string text_of(const json& parent, const char* key) {
  const auto found = parent.find(key);
  return found != parent.end() && found->is_string() ? found->get<std::string>() : "";
}

bool flag(const json& parent, const char* key) {
  const auto found = parent.find(key);
  return found != parent.end() && found->is_boolean() && found->get<bool>();
}

Interval interval(const json& parent, const char* key) {
  const auto found = parent.find(key);
  if (found == parent.end() || !found->is_object()) return {kNone, kNone, kNone};
  return {number(*found, "mean"), number(*found, "low"), number(*found, "high")};
}

/// Entries of a list that may be absent.
const json& list(const json& parent, const char* key) {
  static const json kEmpty = json::array();
  const auto found = parent.find(key);
  return found != parent.end() && found->is_array() ? *found : kEmpty;
}

std::optional<Seen> seen(const std::string& label) {
  for (const auto seen : {Seen::kCalibratedOn, Seen::kSameSource, Seen::kNever})
    if (name_of(seen) == label) return seen;
  return std::nullopt;
}

Verdict verdict(const json& parent, const char* key) {
  const auto found = parent.find(key);
  const std::string name =
      found != parent.end() && found->is_object() ? text_of(*found, "verdict") : "";
  for (const auto verdict : {Verdict::kBetter, Verdict::kWorse})
    if (name_of(verdict) == name) return verdict;
  return Verdict::kNotDistinguishable;
}

Score score_of(const json& entry) {
  Score score;
  score.n_tokens = count(entry, "tokens");
  score.n_not_finite = count(entry, "not_finite");
  score.loss = interval(entry, "loss");
  score.loss_change = interval(entry, "loss_change");
  score.kld = interval(entry, "kld");
  score.kld_p90 = number(entry, "kld_p90");
  score.kld_p99 = number(entry, "kld_p99");
  score.kld_max = number(entry, "kld_max");
  score.top1_agreement = interval(entry, "same_top");
  score.rms_delta_p = number(entry, "rms_delta_p");
  score.has_gap_recovery = entry.contains("gap_recovery") && entry["gap_recovery"].is_object();
  if (score.has_gap_recovery) score.gap_recovery = interval(entry, "gap_recovery");
  return score;
}

class Reader {
 public:
  Reader(const json& results, const std::string& place) : results_(results), place_(place) {}

  Evaluation read() {
    read_suites();
    read_models();
    read_notes();
    read_pairs();
    read_overlaps();
    read_alignments();
    read_continuations();
    read_choices();
    out_.control = text_of(results_, "control");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const std::string& name) const {
    throw bad_input(
        fmt::format("an entry is about the {} \"{}\", which is none of these results", what, name),
        place_, "give what eval --json printed, unchanged");
  }
  std::size_t row(const std::string& name) const {
    for (std::size_t r = 0; r < out_.table.rows.size(); ++r)
      if (out_.table.rows[r].name == name) return r;
    fail("model", name);
  }
  std::size_t suite(const std::string& name) const {
    for (std::size_t s = 0; s < out_.table.suites.size(); ++s)
      if (out_.table.suites[s].name == name) return s;
    fail("suite", name);
  }

  void read_suites() {
    auto& table = out_.table;
    table.baseline = text_of(results_, "baseline");
    for (const auto& entry : list(results_, "suites")) {
      SuiteSpec spec;
      spec.name = text_of(entry, "name");
      spec.pattern = text_of(entry, "file");
      spec.protocol_text = text_of(entry, "protocol");
      table.suites.push_back(spec);
      table.suite_tokens.push_back(count(entry, "tokens"));
      table.suite_units.push_back(count(entry, "units"));
      table.suite_hashes.push_back(text_of(entry, "hash"));
      table.suite_seen.push_back(seen(text_of(entry, "label")));
    }
  }

  void read_models() {
    auto& table = out_.table;
    for (const auto& entry : list(results_, "models")) {
      Row row;
      row.name = text_of(entry, "name");
      row.path = text_of(entry, "path");
      row.hash = text_of(entry, "hash");
      row.size_bytes = static_cast<std::uint64_t>(count(entry, "bytes"));
      row.file_bpw = number(entry, "file_bpw");
      row.matrix_bpw = number(entry, "matrix_bpw");
      row.strict = flag(entry, "strict");
      row.is_reference = flag(entry, "reference");
      row.is_stored = flag(entry, "stored");
      row.is_baseline = row.name == table.baseline;
      for (const auto& suite : table.suites)
        row.scores.push_back(score_of(entry["scores"].value(suite.name, json::object())));
      table.rows.push_back(std::move(row));
    }
  }

  void read_notes() {
    for (const auto& entry : list(results_, "notes"))
      out_.notes.push_back(
          {text_of(entry, "model"), text_of(entry, "suite"), text_of(entry, "text")});
  }

  void read_pairs() {
    for (const auto& entry : list(results_, "pairs")) {
      PairComparison comparison;
      comparison.loss = interval(entry, "loss");
      comparison.kld = interval(entry, "kld");
      comparison.loss_verdict = verdict(entry, "loss");
      comparison.kld_verdict = verdict(entry, "kld");
      if (const auto kld = entry.find("kld"); kld != entry.end() && kld->is_object()) {
        comparison.resolution = number(*kld, "resolution");
        comparison.enough = flag(*kld, "enough");
        comparison.tokens_needed = count(*kld, "tokens_needed");
      }
      out_.pairs.push_back({suite(text_of(entry, "suite")), row(text_of(entry, "a")),
                            row(text_of(entry, "b")), comparison});
    }
  }

  void read_overlaps() {
    for (const auto& entry : list(results_, "overlap")) {
      Overlap overlap;
      overlap.calibration = text_of(entry, "calibration");
      overlap.suite = text_of(entry, "suite");
      overlap.seen = seen(text_of(entry, "label")).value_or(Seen::kNever);
      overlap.shared_ngrams = number(entry, "shared_ngrams");
      overlap.near_duplicates = count(entry, "near_duplicates");
      overlap.near_duplicate_share = number(entry, "near_duplicate_share");
      overlap.source_auc = number(entry, "source_auc");
      overlap.has_source_auc = overlap.source_auc == overlap.source_auc;  // not NaN
      for (const auto& m : list(entry, "matches"))
        overlap.matches.push_back({text_of(m, "suite_place"), text_of(m, "calibration_place"),
                                   number(m, "similarity"), text_of(m, "text")});
      out_.overlaps.push_back(std::move(overlap));
    }
  }

  void read_alignments() {
    for (const auto& entry : list(results_, "alignment")) {
      const auto r = row(text_of(entry, "model"));
      if (out_.alignments.empty() || out_.alignments.back().row != r)
        out_.alignments.push_back({r, {}});
      Alignment alignment;
      alignment.suite = text_of(entry, "suite");
      alignment.below_reference = flag(entry, "below_reference");
      alignment.verdict = text_of(entry, "verdict");
      alignment.text = text_of(entry, "text");
      out_.alignments.back().suites.push_back(std::move(alignment));
    }
  }

  void read_continuations() {
    for (const auto& entry : list(results_, "continuations")) {
      Evaluation::Written written;
      written.suite = suite(text_of(entry, "suite"));
      written.row = row(text_of(entry, "model"));
      written.n_prompts = static_cast<std::size_t>(count(entry, "prompts"));
      written.n_tokens = count(entry, "tokens");
      if (const double median = number(entry, "median"); median == median)
        written.prefixes.median = median;
      written.prefixes.identical = number(entry, "identical");
      written.prefixes.agreement = number(entry, "agreement");
      out_.continuations.push_back(std::move(written));
    }
  }

  void read_choices() {
    for (const auto& entry : list(results_, "choices")) {
      Evaluation::Choices choices;
      choices.name = text_of(entry, "name");
      choices.n_questions = static_cast<std::size_t>(count(entry, "questions"));
      for (const auto& m : list(entry, "models")) {
        ChoiceScore score;
        score.accuracy = interval(m, "accuracy");
        score.accuracy_per_byte = interval(m, "accuracy_per_byte");
        score.agreement = interval(m, "agreement");
        score.gained = count(m, "gained");
        score.lost = count(m, "lost");
        score.n_not_finite = count(m, "not_finite");
        choices.scores.push_back(score);
      }
      if (choices.scores.size() > out_.table.rows.size()) fail("choice suite", choices.name);
      out_.choices.push_back(std::move(choices));
    }
  }

  const json& results_;
  const std::string& place_;
  Evaluation out_;
};

void check_model(const JsonCheck& check, const json& model, const std::string& at) {
  check.texts(model, at, {"name", "path", "hash"});
  check.numbers(model, at, {"file_bpw", "matrix_bpw", "mebibytes"});
  const auto scores = model.find("scores");
  if (scores == model.end() || !scores->is_object())
    check.fail(at + "/scores", "this must be an object with one entry a suite");
  for (const auto& [suite, score] : scores->items()) {
    const std::string place = at + "/scores/" + suite;
    if (!score.is_object()) check.fail(place, "this must be an object");
    check.numbers(score, place, {"tokens", "kld_p90", "kld_p99", "kld_max", "rms_delta_p"});
    check.intervals(score, place, {"loss", "kld", "same_top", "gap_recovery"});
  }
}

}  // namespace

json parse_results(const std::string& text, const std::string& place) {
  json results = parse_json(text, place, kMakeResults);
  const JsonCheck check(place, kMakeResults);
  if (!results.is_object()) check.fail("", "this is not what eval prints: an object was expected");
  if (const auto format = results.find("format");
      format != results.end() &&
      (!format->is_number_integer() || format->get<std::int64_t>() > kFormat))
    throw bad_input("these results are of a newer format than this program knows", place,
                    "use the spectralquant that made them, or a newer one");
  const auto both = [&](const json& entry, const std::string& at) {
    check.texts(entry, at, {"model", "suite"});
  };
  check.each(results, "", "suites", true, [&](const json& suite, const std::string& at) {
    check.texts(suite, at, {"name", "file", "protocol"});
  });
  check.each(results, "", "models", true,
             [&](const json& model, const std::string& at) { check_model(check, model, at); });
  check.each(results, "", "notes", false, [&](const json& note, const std::string& at) {
    check.texts(note, at, {"model", "suite", "text"});
  });
  check.each(results, "", "pairs", false, [&](const json& pair, const std::string& at) {
    check.texts(pair, at, {"suite", "a", "b"});
  });
  check.each(results, "", "overlap", false, [&](const json& overlap, const std::string& at) {
    check.texts(overlap, at, {"calibration", "suite", "label"});
  });
  for (const char* key : {"alignment", "continuations", "details"})
    check.each(results, "", key, false, both);
  check.each(results, "", "choices", false, [&](const json& choices, const std::string& at) {
    check.texts(choices, at, {"name"});
  });
  return results;
}

Evaluation evaluation_of(const json& results, const std::string& place) {
  return Reader(results, place).read();
}

}  // namespace spectralquant::evaluate
