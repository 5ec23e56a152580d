#pragma once
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/evaluate/alignment.h"
#include "spectralquant/evaluate/calibration_record.h"
#include "spectralquant/evaluate/choice.h"
#include "spectralquant/evaluate/continuation.h"
#include "spectralquant/evaluate/details.h"
#include "spectralquant/evaluate/pairs.h"
#include "spectralquant/evaluate/table.h"

namespace spectralquant::evaluate {

/// What is to be scored, and how closely.
struct EvaluationRequest {
  std::string reference;  ///< the original's file
  /// Or a file of StoredLogits that stands for it. It holds one text: suites, choices,
  /// continue_tokens and details must then be empty.
  std::string reference_logits;
  std::vector<std::string> candidates;  ///< files
  std::vector<SuiteSpec> suites;
  std::vector<std::string> choices;            ///< multiple-choice suites, NAME=FILE
  std::vector<std::string> calibration_texts;  ///< files or globs
  /// a candidate, as find_candidate() reads it: gap recovery is measured against it
  std::string baseline;
  /// a candidate: the same quantization, calibrated on the model's own samples
  std::string control;
  std::int64_t continue_tokens = 0;  ///< length of greedy continuations; 0: none
  bool details = false;              ///< Evaluation::details
  std::string cache_folder;          ///< "": nothing is kept
  model::ModelOptions model;
  EvaluateOptions options;
};

struct Evaluation {
  struct Pair {
    std::size_t suite, a, b;
    PairComparison comparison;
  };  ///< a, b: rows of the table
  struct Judgement {
    std::size_t row;
    std::vector<Alignment> suites;
  };
  struct Written {
    std::size_t suite, row;
    CommonPrefixes prefixes;
    struct Example {
      std::string prompt, same, reference, candidate;
      std::int64_t diverged_at = 0;
    };
    std::size_t n_prompts = 0, prompt_tokens = 0;
    std::int64_t n_tokens = 0;
    std::vector<Example> examples;
  };
  struct Choices {
    std::string name, file, hash;
    std::size_t n_questions = 0;
    std::vector<ChoiceScore> scores;  ///< by row
  };
  /// What a reader of the figures must know about one model or one suite; the other name is "".
  struct Note {
    std::string model, suite, text;
  };
  struct Look {
    std::size_t suite, row;
    Positions positions;
    Details details;
  };  ///< row: of a candidate

  Table table;          ///< the reference first, candidates by size
  std::string control;  ///< name of its row, "" if none
  EvaluateOptions options;
  std::vector<Suite> suites;
  std::vector<CalibrationRecord> calibrations;  ///< by row
  std::vector<std::string> calibration_texts;   ///< as given
  std::vector<Note> notes;
  std::vector<Overlap> overlaps;
  // A model whose predictions on a suite are not finite is in none of the following for that suite.
  std::vector<Pair> pairs;
  std::vector<Judgement> alignments;
  std::vector<Written> continuations;
  std::vector<Choices> choices;
  std::vector<Look> looks;
  std::vector<std::vector<float>> reference_losses;  ///< by suite; filled for `looks`
  std::optional<text::Tokenizer> tokenizer;          ///< for the texts of tokens
  /// why results could not be kept, "" if they were
  std::string cache_problem;
};

/// Scores candidates against their original on suites, with all that was asked for. Everything that
/// can be refused is refused before the first model runs.
///
/// Errors   Error(kBadUsage): no original or two, a baseline or control that is no candidate or may
///          be several, a name or file given twice.
///          Error(kBadInput): a file that is no model or a quantization of another one (by its
///          tokenizer), unusable text; an original whose predictions are not finite.
Evaluation evaluate(const EvaluationRequest& request, const Progress& progress = {});

}  // namespace spectralquant::evaluate
