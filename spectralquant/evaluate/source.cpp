#include "spectralquant/evaluate/source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>

namespace spectralquant::evaluate {
namespace {

constexpr std::size_t kFolds = 5, kMinPieces = 20;
// Laplace's rule would drown rare words at these sizes of text; a tenth of a count is the usual
// choice for naive Bayes on words.
constexpr double kSmoothing = 0.1;

struct Piece {
  std::vector<std::uint64_t> features;  ///< words and pairs of neighbours
  std::size_t fold = 0;
};

std::vector<Piece> pieces_of(const std::vector<Passage>& passages) {
  std::vector<Piece> pieces;
  for (const auto& passage : passages) {
    const auto words = words_of(passage.text);
    for (std::size_t begin = 0; begin < words.size(); begin += kPieceWords) {
      const std::size_t end = std::min(words.size(), begin + kPieceWords);
      if (end - begin < kPieceWords / 4 && begin > 0) break;  // a rest too short to judge
      Piece piece;
      piece.fold = static_cast<std::size_t>(passage.document);  // a document's number for now
      for (std::size_t i = begin; i < end; ++i) {
        piece.features.push_back(words[i]);
        if (i > begin) piece.features.push_back(words[i - 1] * 0x9e3779b97f4a7c15 ^ words[i]);
      }
      pieces.push_back(std::move(piece));
    }
  }
  // Pieces of one document share their subject: they stay in one fold. A text of fewer documents
  // than folds is cut into stretches instead.
  const bool by_document =
      !passages.empty() && passages.back().document + 1 >= static_cast<std::int64_t>(2 * kFolds);
  for (std::size_t i = 0; i < pieces.size(); ++i)
    pieces[i].fold = by_document ? pieces[i].fold % kFolds : i * kFolds / pieces.size();
  return pieces;
}

/// Evenly spread pieces, so that both sides train on about as many.
std::vector<Piece> thinned(const std::vector<Piece>& pieces, std::size_t n) {
  if (pieces.size() <= n) return pieces;
  std::vector<Piece> out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(pieces[i * pieces.size() / n]);
  return out;
}

using Counts = std::unordered_map<std::uint64_t, std::array<double, 2>>;

/// Mean log-odds of a piece's features for side 1.
double log_odds(const Piece& piece, const Counts& counts, const std::array<double, 2>& totals) {
  const double vocabulary = static_cast<double>(counts.size() + 1);
  double sum = 0;
  for (auto feature : piece.features) {
    const auto found = counts.find(feature);
    const std::array<double, 2> n = found == counts.end() ? std::array<double, 2>{} : found->second;
    for (int side : {0, 1})
      sum += (side ? 1 : -1) *
             std::log((n[side] + kSmoothing) / (totals[side] + kSmoothing * vocabulary));
  }
  return piece.features.empty() ? 0 : sum / static_cast<double>(piece.features.size());
}

/// Share of pairs (x of a, y of b) with x < y; ties count half.
double area(std::vector<double> a, std::vector<double> b) {
  std::sort(a.begin(), a.end());
  double wins = 0;
  for (double y : b) {
    const auto low = std::lower_bound(a.begin(), a.end(), y),
               high = std::upper_bound(a.begin(), a.end(), y);
    wins += static_cast<double>(low - a.begin()) + static_cast<double>(high - low) / 2;
  }
  return wins / (static_cast<double>(a.size()) * static_cast<double>(b.size()));
}

}  // namespace

std::optional<double> source_auc(const std::vector<Passage>& a, const std::vector<Passage>& b) {
  auto first = pieces_of(a), second = pieces_of(b);
  const std::size_t n = std::min(first.size(), second.size());
  if (n < kMinPieces) return std::nullopt;
  const std::array<std::vector<Piece>, 2> sides = {thinned(first, n), thinned(second, n)};
  double sum = 0;
  int n_folds = 0;
  for (std::size_t fold = 0; fold < kFolds; ++fold) {
    Counts counts;
    std::array<double, 2> totals{};
    for (int side : {0, 1})
      for (const auto& piece : sides[side])
        if (piece.fold != fold)
          for (auto feature : piece.features) ++counts[feature][side], ++totals[side];
    std::array<std::vector<double>, 2> scores;
    for (int side : {0, 1})
      for (const auto& piece : sides[side])
        if (piece.fold == fold) scores[side].push_back(log_odds(piece, counts, totals));
    if (scores[0].empty() || scores[1].empty()) continue;
    sum += area(scores[0], scores[1]);
    ++n_folds;
  }
  if (n_folds == 0) return std::nullopt;
  return sum / n_folds;
}

std::optional<double> closest_source_auc(const std::vector<Passage>& calibration,
                                         const std::vector<Passage>& suite) {
  std::map<std::string, std::vector<Passage>> parts;
  for (const auto& passage : calibration) {
    auto& part = parts[passage.source];
    part.push_back(passage);
    part.back().document = static_cast<std::int64_t>(part.size()) - 1;
  }
  auto lowest = source_auc(calibration, suite);
  if (parts.size() < 2) return lowest;
  for (const auto& [source, part] : parts)
    if (const auto auc = source_auc(part, suite); auc && (!lowest || *auc < *lowest)) lowest = auc;
  return lowest;
}

}  // namespace spectralquant::evaluate
