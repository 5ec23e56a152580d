#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/evaluate/score.h"
#include "spectralquant/evaluate/suite.h"

namespace spectralquant::evaluate {

/// Multiple-choice questions. Every choice is an item of `suite`: question and choice, of which the
/// choice is scored.
struct ChoiceSuite {
  struct Question {
    std::string place;               ///< "file.jsonl:12"
    std::size_t first_item = 0;      ///< its choices are items first_item …
    std::vector<std::size_t> bytes;  ///< length of each choice's text
    std::size_t answer = 0;          ///< index of the right one
  };
  Suite suite;
  std::vector<Question> questions;
};

/// NAME=FILE[:+special].  Errors  Error(kBadUsage) with the grammar.
SuiteSpec parse_choices(const std::string& text);

/// Reads JSONL with `question` or `prompt`, `choices` (texts, or {"text": [...], "label": [...]} as
/// the ARC sets have them) and `answer` (index from 0, label, or the text of a choice). `text` is
/// as parse_choices() reads it.
///
/// A choice is scored after the question and one space, unless one of them brings white space of
/// its own. Special tokens in the texts are letters, unless +special parses them.
/// Errors   those of parse_choices(). Error(kBadInput), with file and line: unreadable, no
///          question, fewer than two choices, an answer that is none of them, a choice without a
///          token of its own.
ChoiceSuite load_choices(const std::string& text, const text::Tokenizer& tokenizer);

/// What a model does on such a suite. If any of its predictions is not finite, no figure is a
/// number.
struct ChoiceScore {
  Interval accuracy;           ///< the likeliest choice is the right one
  Interval accuracy_per_byte;  ///< the same with log-likelihood divided by the choice's bytes
  /// share of questions for which model and reference choose alike (by likelihood)
  Interval agreement;
  std::int64_t gained = 0;        ///< flips: the reference is wrong, the model right
  std::int64_t lost = 0;          ///< flips: the reference is right, the model wrong
  std::int64_t n_not_finite = 0;  ///< scored tokens whose loss is NaN or infinite

  bool is_finite() const { return n_not_finite == 0; }
};
ChoiceScore score_choices(const ChoiceSuite& choices, const Positions& reference,
                          const Positions& model, const EvaluateOptions& options);

}  // namespace spectralquant::evaluate
