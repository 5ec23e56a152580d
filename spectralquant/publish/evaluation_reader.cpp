#include "spectralquant/publish/evaluation_reader.h"

#include <fmt/format.h>

#include <limits>
#include <optional>

#include "spectralquant/core/error.h"

namespace spectralquant::publish {
namespace {

using nlohmann::json;

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

std::string text(const json& parent, const char* key) {
  const auto found = parent.find(key);
  return found != parent.end() && found->is_string() ? found->get<std::string>() : "";
}

bool flag(const json& parent, const char* key) {
  const auto found = parent.find(key);
  return found != parent.end() && found->is_boolean() && found->get<bool>();
}

evaluate::Interval interval(const json& parent, const char* key) {
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

std::optional<evaluate::Seen> seen(const std::string& label) {
  for (const auto seen :
       {evaluate::Seen::kCalibratedOn, evaluate::Seen::kSameSource, evaluate::Seen::kNever})
    if (name_of(seen) == label) return seen;
  return std::nullopt;
}

evaluate::Verdict verdict(const json& parent, const char* key) {
  const auto found = parent.find(key);
  const std::string name =
      found != parent.end() && found->is_object() ? text(*found, "verdict") : "";
  for (const auto verdict : {evaluate::Verdict::kBetter, evaluate::Verdict::kWorse})
    if (name_of(verdict) == name) return verdict;
  return evaluate::Verdict::kNotDistinguishable;
}

evaluate::Score score_of(const json& entry) {
  evaluate::Score score;
  score.n_tokens = count(entry, "tokens");
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

  evaluate::Evaluation read() {
    read_suites();
    read_models();
    read_pairs();
    read_overlaps();
    read_alignments();
    read_continuations();
    read_choices();
    out_.control = text(results_, "control");
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
    table.baseline = text(results_, "baseline");
    for (const auto& entry : list(results_, "suites")) {
      evaluate::SuiteSpec spec;
      spec.name = text(entry, "name");
      spec.pattern = text(entry, "file");
      spec.protocol_text = text(entry, "protocol");
      table.suites.push_back(spec);
      table.suite_tokens.push_back(count(entry, "tokens"));
      table.suite_units.push_back(count(entry, "units"));
      table.suite_hashes.push_back(text(entry, "hash"));
      table.suite_seen.push_back(seen(text(entry, "label")));
    }
  }

  void read_models() {
    auto& table = out_.table;
    for (const auto& entry : list(results_, "models")) {
      evaluate::Row row;
      row.name = text(entry, "name");
      row.path = text(entry, "path");
      row.hash = text(entry, "hash");
      row.size_bytes = static_cast<std::uint64_t>(count(entry, "bytes"));
      row.file_bpw = number(entry, "file_bpw");
      row.matrix_bpw = number(entry, "matrix_bpw");
      row.strict = flag(entry, "strict");
      row.is_reference = flag(entry, "reference");
      row.is_baseline = row.name == table.baseline;
      for (const auto& suite : table.suites)
        row.scores.push_back(score_of(entry["scores"].value(suite.name, json::object())));
      table.rows.push_back(std::move(row));
    }
  }

  void read_pairs() {
    for (const auto& entry : list(results_, "pairs")) {
      evaluate::PairComparison comparison;
      comparison.loss = interval(entry, "loss");
      comparison.kld = interval(entry, "kld");
      comparison.loss_verdict = verdict(entry, "loss");
      comparison.kld_verdict = verdict(entry, "kld");
      if (const auto kld = entry.find("kld"); kld != entry.end() && kld->is_object()) {
        comparison.resolution = number(*kld, "resolution");
        comparison.enough = flag(*kld, "enough");
        comparison.tokens_needed = count(*kld, "tokens_needed");
      }
      out_.pairs.push_back(
          {suite(text(entry, "suite")), row(text(entry, "a")), row(text(entry, "b")), comparison});
    }
  }

  void read_overlaps() {
    for (const auto& entry : list(results_, "overlap")) {
      evaluate::Overlap overlap;
      overlap.calibration = text(entry, "calibration");
      overlap.suite = text(entry, "suite");
      overlap.seen = seen(text(entry, "label")).value_or(evaluate::Seen::kNever);
      overlap.shared_ngrams = number(entry, "shared_ngrams");
      overlap.near_duplicates = count(entry, "near_duplicates");
      overlap.near_duplicate_share = number(entry, "near_duplicate_share");
      overlap.source_auc = number(entry, "source_auc");
      overlap.has_source_auc = overlap.source_auc == overlap.source_auc;  // not NaN
      for (const auto& m : list(entry, "matches"))
        overlap.matches.push_back({text(m, "suite_place"), text(m, "calibration_place"),
                                   number(m, "similarity"), text(m, "text")});
      out_.overlaps.push_back(std::move(overlap));
    }
  }

  void read_alignments() {
    for (const auto& entry : list(results_, "alignment")) {
      const auto r = row(text(entry, "model"));
      if (out_.alignments.empty() || out_.alignments.back().row != r)
        out_.alignments.push_back({r, {}});
      evaluate::Alignment alignment;
      alignment.suite = text(entry, "suite");
      alignment.below_reference = flag(entry, "below_reference");
      alignment.verdict = text(entry, "verdict");
      alignment.text = text(entry, "text");
      out_.alignments.back().suites.push_back(std::move(alignment));
    }
  }

  void read_continuations() {
    for (const auto& entry : list(results_, "continuations")) {
      evaluate::Evaluation::Written written;
      written.suite = suite(text(entry, "suite"));
      written.row = row(text(entry, "model"));
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
      evaluate::Evaluation::Choices choices;
      choices.name = text(entry, "name");
      choices.n_questions = static_cast<std::size_t>(count(entry, "questions"));
      for (const auto& m : list(entry, "models")) {
        evaluate::ChoiceScore score;
        score.accuracy = interval(m, "accuracy");
        score.accuracy_per_byte = interval(m, "accuracy_per_byte");
        score.agreement = interval(m, "agreement");
        score.gained = count(m, "gained");
        score.lost = count(m, "lost");
        choices.scores.push_back(score);
      }
      if (choices.scores.size() > out_.table.rows.size()) fail("choice suite", choices.name);
      out_.choices.push_back(std::move(choices));
    }
  }

  const json& results_;
  const std::string& place_;
  evaluate::Evaluation out_;
};

}  // namespace

evaluate::Evaluation evaluation_of(const json& results, const std::string& place) {
  return Reader(results, place).read();
}

}  // namespace spectralquant::publish
