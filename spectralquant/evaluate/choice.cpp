#include "spectralquant/evaluate/choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/evaluate/statistics.h"
#include "spectralquant/text/json_records.h"
#include "spectralquant/text/read_text.h"

namespace spectralquant::evaluate {
namespace {

using Json = text::JsonRecord;

constexpr const char* kQuestionFix =
    R"(a line is {"question": "…", "choices": ["…", "…"], "answer": 0})";

struct Line {
  std::string question;
  std::vector<std::string> choices, labels;
  std::size_t answer = 0;
};

std::vector<std::string> texts_of(const Json& list, const std::string& place) {
  std::vector<std::string> texts;
  for (const Json& text : list) {
    if (!text.is_string()) throw bad_input("a choice is no text", place, kQuestionFix);
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

/// An index, a label or the text of a choice.
std::optional<std::size_t> find_answer(const Json& answer, const Line& line) {
  if (answer.is_number_integer()) {
    const auto index = answer.get<std::int64_t>();
    if (index >= 0 && index < static_cast<std::int64_t>(line.choices.size()))
      return static_cast<std::size_t>(index);
    return std::nullopt;
  }
  if (!answer.is_string()) return std::nullopt;
  for (const auto* texts : {&line.labels, &line.choices}) {
    const auto found = std::find(texts->begin(), texts->end(), answer.get<std::string>());
    if (found != texts->end()) return static_cast<std::size_t>(found - texts->begin());
  }
  return std::nullopt;
}

Line parse_line(const Json& json, const std::string& place) {
  if (!json.is_object()) throw bad_input("the question is no JSON object", place, kQuestionFix);
  Line line;
  for (const char* key : {"prompt", "question"})  // "question" wins
    if (const auto value = json.find(key); value != json.end() && value->is_string())
      line.question = value->get<std::string>();
  if (line.question.empty())
    throw bad_input("the question has neither \"question\" nor \"prompt\"", place, kQuestionFix);
  const Json choices = json.value("choices", Json());
  if (choices.is_array()) {
    line.choices = texts_of(choices, place);
    for (std::size_t i = 0; i < line.choices.size(); ++i)
      line.labels.emplace_back(1, static_cast<char>('A' + i % 26));
  } else if (choices.is_object() && choices.contains("text")) {
    line.choices = texts_of(choices["text"], place);
    line.labels = texts_of(choices.value("label", Json::array()), place);
  }
  if (line.choices.size() < 2)
    throw bad_input("the question has fewer than two choices", place, kQuestionFix);
  const auto answer = find_answer(json.value("answer", Json()), line);
  if (!answer)
    throw bad_input("\"answer\" is none of the choices", place,
                    "give an index from 0, a label, or the text of a choice");
  line.answer = *answer;
  return line;
}

bool has_space_between(const std::string& question, const std::string& choice) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\t'; };
  return is_space(question.back()) || (!choice.empty() && is_space(choice.front()));
}

Item make_item(const Line& line, const std::string& choice, const text::Tokenizer& tokenizer,
               bool parse_special, const std::string& place) {
  const text::EncodeOptions options{.parse_special = parse_special};
  const auto before = tokenizer.encode(line.question, options);
  Item item;
  item.place = place;
  item.tokens = tokenizer.encode(
      line.question + (has_space_between(line.question, choice) ? "" : " ") + choice, options);
  // What the choice changes is scored: a token may span the seam.
  const auto seam =
      std::mismatch(before.begin(), before.end(), item.tokens.begin(), item.tokens.end());
  item.first_scored = std::max<std::int64_t>(1, seam.second - item.tokens.begin());
  if (item.first_scored >= static_cast<std::int64_t>(item.tokens.size()))
    throw bad_input("a choice adds no token to the question", place, "give choices with text");
  return item;
}

/// The choice whose scored tokens are likeliest; `by_byte` divides by the length of its text.
std::size_t choose(const ChoiceSuite::Question& question, const std::vector<double>& losses,
                   bool by_byte) {
  std::size_t best = 0;
  double best_loss = 0;
  for (std::size_t c = 0; c < question.bytes.size(); ++c) {
    const double loss =
        losses[question.first_item + c] /
        (by_byte ? static_cast<double>(std::max<std::size_t>(1, question.bytes[c])) : 1.0);
    if (c == 0 || loss < best_loss) best = c, best_loss = loss;
  }
  return best;
}

std::vector<double> item_losses(const ChoiceSuite& choices, const Positions& positions) {
  std::vector<double> losses;
  std::size_t next = 0;
  for (const auto& item : choices.suite.items) {
    double sum = 0;
    for (std::size_t i = 0; i < item.n_scored(); ++i) sum += positions.loss[next++];
    losses.push_back(sum);
  }
  return losses;
}

}  // namespace

SuiteSpec parse_choices(const std::string& text) {
  constexpr std::string_view kSpecial = ":+special";
  SuiteSpec spec;
  const auto equals = text.find('=');
  if (equals != std::string::npos) {
    spec.name = text.substr(0, equals);
    spec.pattern = text.substr(equals + 1);
  }
  spec.protocol_text = "choices";
  if (spec.pattern.ends_with(kSpecial)) {
    spec.parse_special = true;
    spec.pattern.resize(spec.pattern.size() - kSpecial.size());
  }
  if (spec.name.empty() || spec.pattern.empty())
    throw Error(ErrorCode::kBadUsage, "cannot read '" + text + "'", "--choices",
                "write NAME=FILE, or NAME=FILE:+special to parse special tokens");
  return spec;
}

ChoiceSuite load_choices(const std::string& text, const text::Tokenizer& tokenizer) {
  ChoiceSuite out;
  out.suite.spec = parse_choices(text);
  const std::string& path = out.suite.spec.pattern;
  Hasher hasher;
  const auto add = [&](const Json& json, const std::string& place) {
    const Line line = parse_line(json, place);
    ChoiceSuite::Question question{place, out.suite.items.size(), {}, line.answer};
    for (const auto& choice : line.choices) {
      Item item = make_item(line, choice, tokenizer, out.suite.spec.parse_special, place);
      item.document = static_cast<std::int64_t>(out.questions.size());
      hasher.update(item.tokens.data(), item.tokens.size() * sizeof(text::TokenId))
          .update(&item.first_scored, sizeof item.first_scored);
      out.suite.n_scored += static_cast<std::int64_t>(item.n_scored());
      question.bytes.push_back(choice.size());
      out.suite.items.push_back(std::move(item));
    }
    out.questions.push_back(std::move(question));
  };
  text::visit_json_records(text::read_text(path), path, add);
  if (out.questions.empty()) throw bad_input(path + " holds no question", path, kQuestionFix);
  out.suite.n_units = static_cast<std::int64_t>(out.questions.size());
  out.suite.hash = hasher.hex();
  return out;
}

ChoiceScore score_choices(const ChoiceSuite& choices, const Positions& reference,
                          const Positions& model, const EvaluateOptions& options) {
  const auto of_reference = item_losses(choices, reference), of_model = item_losses(choices, model);
  ChoiceScore score;
  score.n_not_finite = std::count_if(model.loss.begin(), model.loss.end(),
                                     [](float loss) { return !std::isfinite(loss); });
  if (!score.is_finite()) {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    score.accuracy = score.accuracy_per_byte = score.agreement = {kNone, kNone, kNone};
    return score;
  }
  std::vector<float> right, right_per_byte, alike;
  std::vector<std::int32_t> unit;
  for (const auto& question : choices.questions) {
    const auto theirs = choose(question, of_reference, false),
               ours = choose(question, of_model, false);
    right.push_back(ours == question.answer);
    right_per_byte.push_back(choose(question, of_model, true) == question.answer);
    alike.push_back(ours == theirs);
    score.gained += ours == question.answer && theirs != question.answer;
    score.lost += ours != question.answer && theirs == question.answer;
    unit.push_back(static_cast<std::int32_t>(unit.size()));
  }
  const auto share = [&](const std::vector<float>& values) {
    UnitSums units;
    units.count(unit);
    units.add(values, unit);
    return bootstrap(
        units, [](const std::vector<double>& m) { return m[0]; }, options.bootstrap_samples,
        options.seed);
  };
  score.accuracy = share(right);
  score.accuracy_per_byte = share(right_per_byte);
  score.agreement = share(alike);
  return score;
}

}  // namespace spectralquant::evaluate
