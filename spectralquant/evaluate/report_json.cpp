#include "spectralquant/evaluate/report_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "spectralquant/core/json_text.h"
#include "spectralquant/core/version.h"

namespace spectralquant::evaluate {
namespace {

using Json = nlohmann::ordered_json;

// What is drawn needs no more digits, and a token takes a fifth of the bytes.
double rounded(double x) {
  if (x == 0 || !std::isfinite(x)) return 0;
  const double scale = std::pow(10.0, 3 - std::floor(std::log10(std::abs(x))));
  return std::round(x * scale) / scale;
}

/// JSON has no NaN: a recovery whose baseline equals the reference is null.
Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }
Json interval(const Interval& i) {
  return {{"mean", number(i.mean)}, {"low", number(i.low)}, {"high", number(i.high)}};
}
Json interval(const std::optional<Interval>& i) { return i ? interval(*i) : Json(nullptr); }
Json label(const std::optional<Seen>& seen) { return seen ? Json(name_of(*seen)) : Json(nullptr); }

Json score_json(const Score& s, bool is_reference) {
  Json out = {{"tokens", s.n_tokens}, {"not_finite", s.n_not_finite}, {"loss", interval(s.loss)}};
  if (!is_reference) out["loss_change"] = interval(s.loss_change);
  out.update({{"kld", interval(s.kld)},
              {"kld_p90", number(s.kld_p90)},
              {"kld_p99", number(s.kld_p99)},
              {"kld_max", number(s.kld_max)},
              {"same_top", interval(s.top1_agreement)},
              {"rms_delta_p", number(s.rms_delta_p)}});
  if (s.has_gap_recovery) out["gap_recovery"] = interval(s.gap_recovery);
  return out;
}

Json calibration_json(const CalibrationRecord& record, const std::vector<std::string>& texts) {
  Json names = Json::array();
  for (auto t : record.texts) names.push_back(texts[t]);
  return {{"how", name_of(record.how)}, {"description", record.description}, {"hash", record.hash},
          {"tokens", record.n_tokens},  {"matched", record.matched},         {"texts", names}};
}

/// A figure of the model file, which stored predictions have none of.
Json size(const Row& row, double x) { return row.is_stored ? Json(nullptr) : number(x); }

void put_table(Json& out, const Evaluation& e) {
  const auto& table = e.table;
  out["suites"] = Json::array();
  for (std::size_t s = 0; s < table.suites.size(); ++s) {
    out["suites"].push_back({{"name", table.suites[s].name},
                             {"file", table.suites[s].pattern},
                             {"protocol", table.suites[s].protocol_text},
                             {"tokens", table.suite_tokens[s]},
                             {"units", table.suite_units[s]},
                             {"unit", unit_name(table.suites[s].protocol)},
                             {"hash", table.suite_hashes[s]},
                             {"label", label(table.suite_seen[s])}});
  }
  out["models"] = Json::array();
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    const auto& row = table.rows[r];
    Json scores = Json::object(), types = Json::object();
    for (std::size_t s = 0; s < row.scores.size(); ++s)
      scores[table.suites[s].name] = score_json(row.scores[s], row.is_reference);
    for (const auto& [name, n] : row.types) types[name] = n;
    out["models"].push_back(
        {{"name", row.name},
         {"path", row.path},
         {"hash", row.hash},
         {"bytes", row.is_stored ? Json(nullptr) : Json(row.size_bytes)},
         {"mebibytes", size(row, row.mebibytes())},
         {"file_bpw", size(row, row.file_bpw)},
         {"matrix_bpw", size(row, row.matrix_bpw)},
         {"strict", row.strict},
         {"reference", row.is_reference},
         {"stored", row.is_stored},
         {"types", types},
         {"calibration", row.is_reference
                             ? Json(nullptr)
                             : calibration_json(e.calibrations[r], e.calibration_texts)},
         {"scores", scores}});
  }
  out["best"] = Json::object();
  for (std::size_t s = 0; s < table.suites.size(); ++s) {
    Json best = Json::object();
    for (const auto& column : ranked_columns())
      if (const auto r = best_row(table, s, column)) best[column.key] = table.rows[*r].name;
    out["best"][table.suites[s].name] = best;
  }
}

void put_notes(Json& out, const Evaluation& e) {
  out["notes"] = Json::array();
  for (const auto& note : e.notes)
    out["notes"].push_back({{"model", note.model}, {"suite", note.suite}, {"text", note.text}});
}

void put_comparisons(Json& out, const Evaluation& e) {
  const auto& rows = e.table.rows;
  out["pairs"] = Json::array();
  for (const auto& pair : e.pairs) {
    const auto& c = pair.comparison;
    Json loss = interval(c.loss), kld = interval(c.kld);
    loss["verdict"] = name_of(c.loss_verdict);
    kld.update({{"verdict", name_of(c.kld_verdict)},
                {"resolution", number(c.resolution)},
                {"enough", c.enough},
                {"tokens_needed", c.tokens_needed}});
    out["pairs"].push_back({{"suite", e.table.suites[pair.suite].name},
                            {"a", rows[pair.a].name},
                            {"b", rows[pair.b].name},
                            {"loss", loss},
                            {"kld", kld}});
  }
  out["overlap"] = Json::array();
  for (const auto& o : e.overlaps) {
    Json matches = Json::array();
    for (const auto& m : o.matches)
      matches.push_back({{"suite_place", m.suite_place},
                         {"calibration_place", m.calibration_place},
                         {"similarity", m.similarity},
                         {"text", m.text}});
    out["overlap"].push_back({{"calibration", o.calibration},
                              {"suite", o.suite},
                              {"label", name_of(o.seen)},
                              {"shared_ngrams", o.shared_ngrams},
                              {"near_duplicates", o.near_duplicates},
                              {"near_duplicate_share", o.near_duplicate_share},
                              {"source_auc", o.has_source_auc ? Json(o.source_auc) : Json(nullptr)},
                              {"matches", matches}});
  }
  out["alignment"] = Json::array();
  for (const auto& judgement : e.alignments) {
    for (const auto& a : judgement.suites) {
      out["alignment"].push_back({{"model", rows[judgement.row].name},
                                  {"suite", a.suite},
                                  {"label", label(a.seen)},
                                  {"kld", interval(a.kld)},
                                  {"loss_change", interval(a.loss_change)},
                                  {"drift", interval(a.drift)},
                                  {"excess_drift", interval(a.excess_drift)},
                                  {"excess_gain", interval(a.excess_gain)},
                                  {"control_excess_drift", interval(a.control_excess_drift)},
                                  {"below_reference", a.below_reference},
                                  {"verdict", a.verdict},
                                  {"text", a.text}});
    }
  }
}

void put_behaviour(Json& out, const Evaluation& e) {
  out["continuations"] = Json::array();
  for (const auto& w : e.continuations) {
    Json curve = Json::array(), examples = Json::array();
    for (const auto& [tokens, share] : w.prefixes.curve) curve.push_back({tokens, share});
    for (const auto& x : w.examples)
      examples.push_back({{"prompt", x.prompt},
                          {"same", x.same},
                          {"reference", x.reference},
                          {"candidate", x.candidate},
                          {"diverged_at", x.diverged_at}});
    out["continuations"].push_back(
        {{"model", e.table.rows[w.row].name},
         {"suite", e.table.suites[w.suite].name},
         {"prompts", w.n_prompts},
         {"prompt_tokens", w.prompt_tokens},
         {"tokens", w.n_tokens},
         {"median", w.prefixes.median ? Json(*w.prefixes.median) : Json(nullptr)},
         {"identical", w.prefixes.identical},
         {"agreement", w.prefixes.agreement},
         {"curve", curve},
         {"examples", examples}});
  }
  out["choices"] = Json::array();
  for (const auto& c : e.choices) {
    Json models = Json::array();
    for (std::size_t r = 0; r < c.scores.size(); ++r) {
      const auto& s = c.scores[r];
      models.push_back({{"name", e.table.rows[r].name},
                        {"reference", e.table.rows[r].is_reference},
                        {"accuracy", interval(s.accuracy)},
                        {"accuracy_per_byte", interval(s.accuracy_per_byte)},
                        {"agreement", interval(s.agreement)},
                        {"gained", s.gained},
                        {"lost", s.lost},
                        {"not_finite", s.n_not_finite}});
    }
    out["choices"].push_back({{"name", c.name},
                              {"file", c.file},
                              {"hash", c.hash},
                              {"questions", c.n_questions},
                              {"models", models}});
  }
}

/// The texts of single tokens, and the figures beside them.
class DetailWriter {
 public:
  explicit DetailWriter(const Evaluation& e) : e_(e) {}

  Json look(const Evaluation::Look& look) const {
    const auto& d = look.details;
    Json edges = Json::array(), worst = Json::array(), documents = Json::array();
    for (double edge : d.histogram.edges)
      edges.push_back(std::isfinite(edge) ? Json(rounded(edge)) : Json(nullptr));
    for (const auto& w : d.worst) worst.push_back(worst_token(look, w));
    for (const auto& b : d.browsed) documents.push_back(document(look, b));
    Json mean = Json::array();
    for (double kld : d.by_position.kld) mean.push_back(rounded(kld));
    return {{"model", e_.table.rows[look.row].name},
            {"suite", e_.table.suites[look.suite].name},
            {"histogram", {{"edges", edges}, {"counts", d.histogram.counts}}},
            {"by_position",
             {{"edges", d.by_position.edges}, {"tokens", d.by_position.tokens}, {"kld", mean}}},
            {"worst", worst},
            {"documents", documents}};
  }

 private:
  // two lines of text and half a line
  static constexpr std::int64_t kTokensBefore = 40, kTokensAfter = 12;

  std::string text_of(const Item& item, std::int64_t first, std::int64_t last) const {
    const auto size = static_cast<std::int64_t>(item.tokens.size());
    first = std::clamp<std::int64_t>(first, 0, size),
    last = std::clamp<std::int64_t>(last, first, size);
    return e_.tokenizer->decode({item.tokens.begin() + first, item.tokens.begin() + last});
  }
  double p(const std::vector<float>& losses, std::size_t index) const {
    return rounded(std::exp(-static_cast<double>(losses[index])));
  }

  Json side(const std::vector<float>& losses, std::size_t index, const TopTokens& top) const {
    Json list = Json::array();
    for (int k = 0; k < kTopTokens; ++k)
      list.push_back({e_.tokenizer->decode({top.tokens[k]}), rounded(top.probabilities[k])});
    return {{"p", p(losses, index)}, {"top", list}};
  }
  void put_sides(Json& out, const Evaluation::Look& look, const Alternatives& a) const {
    out["reference"] = side(e_.reference_losses[look.suite], a.index, a.reference);
    out["candidate"] = side(look.positions.loss, a.index, a.candidate);
  }

  Json worst_token(const Evaluation::Look& look, const WorstToken& w) const {
    const auto& item = e_.suites[look.suite].items[w.item];
    Json out = {{"place", item.place},
                {"position", w.position},
                {"kld", rounded(look.positions.kld[w.alternatives.index])},
                {"before", text_of(item, w.position - kTokensBefore, w.position)},
                {"token", text_of(item, w.position, w.position + 1)},
                {"after", text_of(item, w.position + 1, w.position + 1 + kTokensAfter)}};
    put_sides(out, look, w.alternatives);
    return out;
  }

  Json document(const Evaluation::Look& look, const BrowsedItem& b) const {
    const auto& item = e_.suites[look.suite].items[b.item];
    Json texts = Json::array(), klds = Json::array(), reference = Json::array(),
         candidate = Json::array(), alternatives = Json::array();
    for (std::size_t i = 0; i < b.n_tokens; ++i) {
      const auto position = item.first_scored + static_cast<std::int64_t>(i);
      texts.push_back(text_of(item, position, position + 1));
      klds.push_back(rounded(look.positions.kld[b.first_index + i]));
      reference.push_back(p(e_.reference_losses[look.suite], b.first_index + i));
      candidate.push_back(p(look.positions.loss, b.first_index + i));
    }
    for (const auto& a : b.alternatives) {
      alternatives.push_back({{"index", a.index - b.first_index}});
      put_sides(alternatives.back(), look, a);
    }
    return {{"place", item.place},
            {"first_position", item.first_scored},
            {"before", text_of(item, item.first_scored - kTokensBefore, item.first_scored)},
            {"text", texts},
            {"kld", klds},
            {"p_reference", reference},
            {"p_candidate", candidate},
            {"alternatives", alternatives}};
  }

  const Evaluation& e_;
};

}  // namespace

std::string to_json(const Evaluation& e) {
  Json out = {{"format", 1},
              {"version", kVersion},
              {"reference", e.table.rows.at(0).name},
              {"baseline", e.table.baseline},
              {"control", e.control},
              {"bootstrap", {{"samples", e.options.bootstrap_samples}, {"seed", e.options.seed}}}};
  put_table(out, e);
  put_notes(out, e);
  put_comparisons(out, e);
  put_behaviour(out, e);
  if (!e.looks.empty()) {
    const DetailWriter writer(e);
    out["details"] = Json::array();
    for (const auto& look : e.looks) out["details"].push_back(writer.look(look));
  }
  // A token may hold a part of a character. With details the file is for programs: one line.
  return json_text(out, e.looks.empty() ? 2 : -1) + "\n";
}

}  // namespace spectralquant::evaluate
