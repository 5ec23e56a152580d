#include <cmath>
#include <nlohmann/json.hpp>

#include "spectralquant/core/json_text.h"
#include "spectralquant/spectra/report.h"

namespace spectralquant::spectra {
namespace {

using nlohmann::json;

/// Points of a spectrum's curve: enough to draw it over a few hundred pixels.
constexpr std::size_t kCurvePoints = 40;

/// JSON has no NaN: what is not known is null.
json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

template <typename Values>
json numbers(const Values& values) {
  json out = json::array();
  for (const double value : values) out.push_back(number(value));
  return out;
}

json to_json(const std::optional<Spectrum>& spectrum, bool eigenvalues) {
  if (!spectrum) return nullptr;
  json out = {{"size", spectrum->size},
              {"trace", spectrum->trace},
              {"effective_rank", spectrum->effective_rank},
              {"participation_ratio", spectrum->participation_ratio},
              {"estimated", spectrum->estimated},
              {"top", json::array()},
              {"curve", json::array()}};
  for (const double share : kTopShares) {
    const std::int64_t count = top_count(share, spectrum->size);
    const bool known = count <= static_cast<std::int64_t>(spectrum->eigenvalues.size());
    out["top"].push_back(
        {{"share", share},
         {"directions", count},
         {"of_trace", known ? json(spectrum->share_of_top(count)) : json(nullptr)}});
  }
  for (const auto& [rank, value] : spectrum->curve(kCurvePoints))
    out["curve"].push_back({rank, value});
  if (eigenvalues) out["eigenvalues"] = spectrum->eigenvalues;
  return out;
}

json to_json(const std::optional<TopShares>& shares) {
  if (!shares) return nullptr;
  return {{"energy", numbers(shares->energy)}, {"cost", numbers(shares->cost)}};
}

json to_json(const MatrixReport& matrix, const Report& report, bool eigenvalues) {
  json out = {{"name", matrix.id.text()},
              {"block", matrix.block < 0 ? json(nullptr) : json(matrix.block)},
              {"rows", matrix.rows},
              {"cols", matrix.cols},
              {"lookup_only", matrix.spectra.lookup_only},
              {"input", to_json(matrix.spectra.input, eigenvalues)},
              {"output", to_json(matrix.spectra.output, eigenvalues)},
              {"lookup", to_json(matrix.spectra.lookup, eigenvalues)},
              {"errors", json::array()}};
  for (std::size_t v = 0; v < matrix.errors.size(); ++v) {
    const ErrorSplit& error = matrix.errors[v];
    out["errors"].push_back({{"variant", report.variants[v].name},
                             {"relative_energy", error.relative_energy},
                             {"predicted_kl", error.predicted_kl},
                             {"lookup_kl", error.lookup_kl},
                             {"white_kl", error.white_kl},
                             {"measured_kl", number(matrix.measured_kl[v])},
                             {"input", to_json(error.input)},
                             {"output", to_json(error.output)},
                             {"lookup", to_json(error.lookup)}});
  }
  return out;
}

}  // namespace

std::string to_json(const Report& report, bool eigenvalues) {
  json out = {
      {"signals",
       {{"text", report.signals_text},
        {"text_hash", report.signals_text_hash},
        {"tokens", report.signals_tokens},
        {"model_hash", report.model_hash}}},
      {"reference", report.reference_path.empty() ? json(nullptr) : json(report.reference_path)},
      {"measured", nullptr},
      {"top_shares", kTopShares},
      {"variants", json::array()},
      {"blocks", json::array()},
      {"matrices", json::array()}};
  if (!report.measured_text.empty())
    out["measured"] = {{"text", report.measured_text}, {"tokens", report.measured_tokens}};
  for (const VariantReport& variant : report.variants) {
    out["variants"].push_back({{"name", variant.name},
                               {"path", variant.path.empty() ? json(nullptr) : json(variant.path)},
                               {"predicted_kl", variant.predicted_kl},
                               {"measured_sum_kl", number(variant.measured_sum_kl)},
                               {"measured_kl", number(variant.measured_kl)},
                               {"rank_correlation", number(variant.rank_correlation)}});
  }
  if (!report.variants.empty()) {
    for (const BlockReport& block : report.blocks) {
      out["blocks"].push_back({{"name", block.name},
                               {"block", block.block < 0 ? json(nullptr) : json(block.block)},
                               {"predicted_kl", numbers(block.predicted_kl)},
                               {"measured_kl", numbers(block.measured_kl)}});
    }
  }
  for (const MatrixReport& matrix : report.matrices)
    out["matrices"].push_back(to_json(matrix, report, eigenvalues));
  return json_text(out, 1) + "\n";
}

}  // namespace spectralquant::spectra
