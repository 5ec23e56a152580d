#include "spectralquant/spectra/analyze.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "spectralquant/core/error.h"
#include "spectralquant/format/round.h"
#include "spectralquant/model/decode.h"
#include "spectralquant/model/model.h"
#include "spectralquant/model/threads.h"

namespace spectralquant::spectra {
namespace {

/// The matrices of the model that the signals are of.
std::vector<gguf::Matrix> matrices_of(const calibrate::Signals& signals,
                                      const gguf::File& reference) {
  std::vector<gguf::Matrix> matrices;
  for (const auto& [id, signal] : signals.matrices) {
    if (!reference.find(id.tensor))
      throw bad_input(
          fmt::format("the model has no {}: these signals are of another model", id.text()),
          reference.path(), "use signals gathered on this model");
    matrices.push_back(gguf::require_matrix(reference, id));
  }
  return matrices;
}

/// The signals whose matrices the model's own output depends on: draft blocks are left out.
calibrate::Signals usable(calibrate::Signals signals, const gguf::File& reference) {
  if (!signals.model_hash.empty() && signals.model_hash != reference.hash()) {
    throw bad_input("these signals are of another model", reference.path(),
                    "use signals gathered on this model");
  }
  const std::int64_t n_blocks = model::make_architecture(reference)->n_blocks();
  calibrate::require_fit(signals, matrices_of(signals, reference), reference.path());
  std::erase_if(signals.matrices, [&](const auto& matrix) {
    return model::block_of(matrix.first.tensor) >= n_blocks;
  });
  for (const auto& [id, signal] : signals.matrices) {
    if (Cost::of(signal, signals.n_tokens).complete()) continue;
    throw bad_input(
        fmt::format("no output moments of {}: what its error costs cannot be predicted", id.text()),
        "signals", "gather the signals with them: spectralquant calibrate --output-moments");
  }
  return signals;
}

/// Matrices that share one H (its storage), so that it is decomposed once.
std::vector<std::vector<gguf::MatrixId>> groups_of(const calibrate::Signals& signals) {
  std::vector<std::vector<gguf::MatrixId>> groups;
  std::map<const void*, std::size_t> index;
  for (const auto& [id, signal] : signals.matrices) {
    if (!signal.h.defined()) {
      groups.push_back({id});
    } else if (const auto [it, is_new] = index.emplace(signal.h.data_ptr(), groups.size());
               is_new) {
      groups.push_back({id});
    } else {
      groups[it->second].push_back(id);
    }
  }
  return groups;
}

/// Directions are needed only while the errors are split.
void forget_directions(std::optional<Spectrum>& spectrum) {
  if (spectrum) spectrum->directions = spectrum->axes = torch::Tensor();
}

std::vector<MatrixReport> analyze_group(const calibrate::Signals& signals,
                                        const std::vector<gguf::MatrixId>& ids,
                                        const gguf::File* reference,
                                        const std::vector<Variant>& variants) {
  std::vector<MatrixReport> out;
  std::optional<Spectrum> input;
  for (const gguf::MatrixId& id : ids) {
    const Cost cost = Cost::of(signals.matrices.at(id), signals.n_tokens);
    MatrixReport matrix;
    matrix.id = id;
    matrix.block = model::block_of(id.tensor);
    if (cost.h.defined() && !input) input = decompose(cost.h);
    matrix.spectra.lookup_only = cost.lookup_only;
    matrix.spectra.input = input;
    if (cost.g.defined()) matrix.spectra.output = decompose(cost.g);
    if (cost.c.defined()) matrix.spectra.lookup = decompose(cost.c);
    matrix.cols = matrix.spectra.input ? matrix.spectra.input->size : 0;
    matrix.rows = matrix.spectra.output ? matrix.spectra.output->size : 0;
    if (reference) {
      const torch::Tensor weights = model::decode(gguf::require_matrix(*reference, id));
      matrix.rows = weights.size(0);
      for (const Variant& variant : variants)
        matrix.errors.push_back(
            split_error(weights, variant.decoded(id, weights), cost, matrix.spectra));
    }
    matrix.measured_kl.assign(matrix.errors.size(), kNotMeasured);
    for (auto* spectrum : {&matrix.spectra.input, &matrix.spectra.output, &matrix.spectra.lookup})
      forget_directions(*spectrum);
    out.push_back(std::move(matrix));
  }
  return out;
}

std::vector<BlockReport> sum_blocks(const std::vector<MatrixReport>& matrices,
                                    std::size_t n_variants) {
  std::vector<BlockReport> blocks;
  for (const MatrixReport& matrix : matrices) {
    if (blocks.empty() || matrix.block < 0 || blocks.back().block != matrix.block) {
      BlockReport block;
      block.block = matrix.block;
      block.name = matrix.id.text();
      if (matrix.block >= 0) {
        block.name = model::block_prefix(matrix.block);
        block.name.pop_back();  // the dot
      }
      block.predicted_kl.assign(n_variants, 0);
      block.measured_kl.assign(n_variants, kNotMeasured);
      blocks.push_back(std::move(block));
    }
    for (std::size_t v = 0; v < n_variants; ++v)
      blocks.back().predicted_kl[v] += matrix.errors[v].predicted_kl;
  }
  return blocks;
}

/// Ranks from 1; equal values share the mean of theirs.
std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0, last = 0; first < order.size(); first = last) {
    while (last < order.size() && values[order[last]] == values[order[first]]) ++last;
    for (std::size_t i = first; i < last; ++i)
      ranks[order[i]] = 0.5 * static_cast<double>(first + last + 1);
  }
  return ranks;
}

}  // namespace

torch::Tensor Variant::decoded(const gguf::MatrixId& id, const torch::Tensor& original) const {
  if (!file) {
    const std::int64_t rows = original.size(0), cols = original.size(1);
    if (cols % static_cast<std::int64_t>(gguf::kSuperBlock) != 0) return original;
    torch::Tensor out = torch::empty_like(original);
    format::round_like_llama(format::Q4_K::kGrid, original.data_ptr<float>(), rows, cols, nullptr,
                             1)
        .decode(0, rows, out.data_ptr<float>());
    return out;
  }
  const gguf::Tensor* own = file->find(id.tensor);
  if (own) {
    for (const gguf::Matrix& matrix : gguf::matrices_of(*own)) {
      if (matrix.slice == id.slice && matrix.rows() == original.size(0) &&
          matrix.cols() == original.size(1))
        return model::decode(matrix);
    }
  }
  throw bad_input(
      own ? fmt::format("{} has shape {}, the original's another", id.tensor, own->shape_text())
          : fmt::format("it has no {}", id.text()),
      file->path(), "compare quantizations of one model only");
}

Report analyze(const calibrate::Signals& gathered, const gguf::File* reference,
               const std::vector<Variant>& variants, const Progress& progress) {
  const calibrate::Signals signals = reference ? usable(gathered, *reference) : gathered;
  Report report;
  report.signals_text = signals.description;
  report.signals_text_hash = signals.text_hash;
  report.model_hash = signals.model_hash;
  report.signals_tokens = signals.n_tokens;
  if (reference) {
    report.reference_path = reference->path();
    for (const Variant& variant : variants)
      report.variants.push_back({variant.name, variant.file ? variant.file->path() : ""});
  }
  const auto groups = groups_of(signals);
  spectralquant::report(progress, {"spectra", "", 0, signals.matrices.size(), "matrices"});
  model::for_each_in_order(groups.size(), torch::kCPU, [&](std::size_t i) {
    return [&, matrices = analyze_group(signals, groups[i], reference, variants)] {
      report.matrices.insert(report.matrices.end(), matrices.begin(), matrices.end());
      spectralquant::report(progress, {"spectra", matrices.back().id.text(), report.matrices.size(),
                                       signals.matrices.size(), "matrices"});
    };
  });
  const auto last_outside = [](const MatrixReport& m) {
    return std::make_tuple(m.block < 0, m.block, m.id);
  };
  std::sort(report.matrices.begin(), report.matrices.end(),
            [&](const auto& a, const auto& b) { return last_outside(a) < last_outside(b); });
  report.blocks = sum_blocks(report.matrices, report.variants.size());
  for (std::size_t v = 0; v < report.variants.size(); ++v) {
    for (const BlockReport& block : report.blocks)
      report.variants[v].predicted_kl += block.predicted_kl[v];
  }
  return report;
}

double rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const std::vector<double> x = ranks_of(a), y = ranks_of(b);
  const double mean = 0.5 * static_cast<double>(a.size() + 1);
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kNotMeasured;
}

}  // namespace spectralquant::spectra
