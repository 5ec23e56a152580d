#pragma once
#include <optional>
#include <vector>

#include "spectralquant/evaluate/overlap.h"

namespace spectralquant::evaluate {

/// Below this two texts count as one source. Measured (docs/evaluation.md): text of the
/// calibration's own data sets at most .64, other text .83 and above.
constexpr double kSameSourceAuc = 0.75;

/// How well a classifier tells two texts apart: the area under its ROC curve, 0.5 for two halves of
/// one source, 1 for texts without likeness.
///
/// A classifier two-sample test: naive Bayes on the words and pairs of words of pieces of
/// kPieceWords words, trained on four fifths of the documents of both texts and asked about the
/// last fifth, five times. Both sides give equally many words to the training.
///
/// Returns  nothing where a side has fewer than 20 pieces.
/// Source   Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, arXiv 1610.06545.
std::optional<double> source_auc(const std::vector<Passage>& a, const std::vector<Passage>& b);

/// The lowest source_auc() of `suite` with all of the calibration text and with each of its sources
/// alone: a mixture of data sets is told from one of them easily, though it holds the same kind of
/// text.
std::optional<double> closest_source_auc(const std::vector<Passage>& calibration,
                                         const std::vector<Passage>& suite);

constexpr std::size_t kPieceWords = 100;

}  // namespace spectralquant::evaluate
