#include "spectralquant/spectra/measure.h"

#include <memory>
#include <numeric>

#include "spectralquant/core/error.h"
#include "spectralquant/evaluate/score.h"

namespace spectralquant::spectra {
namespace {

evaluate::Suite to_suite(const calibrate::Windows& windows) {
  evaluate::Suite suite;
  suite.spec.name = "windows";
  for (const auto& window : windows) {
    if (window.size() < 2)
      throw Error(ErrorCode::kBadUsage, "windows of one token to measure on", {},
                  "use longer windows; 512 is usual");
    evaluate::Item item;
    item.tokens.assign(window.begin(), window.end());
    item.document = suite.n_units++;
    suite.n_scored += static_cast<std::int64_t>(window.size()) - 1;
    suite.items.push_back(std::move(item));
  }
  if (suite.items.empty())
    throw Error(ErrorCode::kBadUsage, "there is no text to measure on", {},
                "give at least one window of tokens");
  return suite;
}

/// The original, and a second model on the same file in which matrices are replaced.
class Bench {
 public:
  Bench(model::Model& reference, const calibrate::Windows& windows)
      : reference_(reference),
        changed_(reference.weights().file(),
                 {.device = reference.device(), .dtype = reference.dtype()}),
        suite_(to_suite(windows)),
        hidden_(evaluate::hidden_states(reference, suite_)) {}

  void put(const Variant& variant, const gguf::MatrixId& id) {
    const torch::Tensor original = reference_.weights().get(id).to(torch::kCPU, torch::kFloat32);
    changed_.weights().set(id, variant.decoded(id, original).to(changed_.dtype()));
  }
  void reset(const gguf::MatrixId& id) { changed_.weights().reset(id); }
  double kl() { return mean_kl(changed_); }

  /// All of a variant: of a file also what is not a matrix.
  double kl_of_whole(const Variant& variant, const std::vector<MatrixReport>& matrices) {
    if (variant.file) {
      model::Model whole(*variant.file, {.device = changed_.device(), .dtype = changed_.dtype()});
      return mean_kl(whole);
    }
    for (const MatrixReport& matrix : matrices) put(variant, matrix.id);
    const double result = kl();
    for (const MatrixReport& matrix : matrices) reset(matrix.id);
    return result;
  }

  std::int64_t n_tokens() const { return suite_.n_scored; }

 private:
  double mean_kl(model::Model& candidate) {
    const evaluate::Positions positions = evaluate::compare(reference_, hidden_, candidate, suite_);
    return std::accumulate(positions.kld.begin(), positions.kld.end(), 0.0) /
           static_cast<double>(positions.kld.size());
  }

  model::Model& reference_;
  model::Model changed_;
  evaluate::Suite suite_;
  std::vector<torch::Tensor> hidden_;  ///< of the reference, by item
};

}  // namespace

void measure(Report& report, model::Model& reference, const std::vector<Variant>& variants,
             const calibrate::Windows& windows, const std::string& description,
             const Progress& progress) {
  Bench bench(reference, windows);
  report.measured_text = description;
  report.measured_tokens = bench.n_tokens();
  const std::uint64_t total = variants.size() * (report.matrices.size() + report.blocks.size() + 1);
  std::uint64_t done = 0;
  const auto tell = [&](const std::string& what) {
    spectralquant::report(progress, {"measure", what, done++, total, "runs"});
  };
  for (std::size_t v = 0; v < variants.size(); ++v) {
    std::vector<double> predicted, measured;
    for (MatrixReport& matrix : report.matrices) {
      tell(matrix.id.text());
      bench.put(variants[v], matrix.id);
      matrix.measured_kl[v] = bench.kl();
      bench.reset(matrix.id);
      predicted.push_back(matrix.errors[v].predicted_kl);
      measured.push_back(matrix.measured_kl[v]);
    }
    for (BlockReport& block : report.blocks) {
      tell(block.name);
      if (block.block < 0) {  // one matrix, known already
        for (const MatrixReport& matrix : report.matrices) {
          if (matrix.id.text() == block.name) block.measured_kl[v] = matrix.measured_kl[v];
        }
        continue;
      }
      for (const MatrixReport& matrix : report.matrices) {
        if (matrix.block == block.block) bench.put(variants[v], matrix.id);
      }
      block.measured_kl[v] = bench.kl();
      for (const MatrixReport& matrix : report.matrices) {
        if (matrix.block == block.block) bench.reset(matrix.id);
      }
    }
    tell(variants[v].name);
    VariantReport& whole = report.variants[v];
    whole.measured_kl = bench.kl_of_whole(variants[v], report.matrices);
    whole.measured_sum_kl = std::accumulate(measured.begin(), measured.end(), 0.0);
    whole.rank_correlation = rank_correlation(predicted, measured);
  }
  tell("");
}

}  // namespace spectralquant::spectra
