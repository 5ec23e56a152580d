#include "spectralquant/pipeline/calibration.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/own_samples.h"

namespace spectralquant::pipeline {
namespace {

constexpr const char* kSamplesFile = "samples";  ///< in the work folder

/// Signals from a file must know the matrices that a forward pass multiplies by. An embedding or a
/// head may be missing, as in a stock imatrix; of an architecture that is not known, anything.
void require_signals_fit(calibrate::Signals& signals, const gguf::File& file,
                         const quantize::Plan& plan, const QuantizeOptions& options) {
  if (!signals.model_hash.empty() && signals.model_hash != file.hash()) {
    throw bad_input("these signals are of another model", options.signals_file,
                    "use signals gathered on this model");
  }
  calibrate::split_rows(signals, file);
  std::set<std::string> needed;  // tensors: of a stack, all matrices or none
  if (model::is_supported(file)) {
    const auto architecture = model::make_architecture(file);
    for (const gguf::MatrixId& id : model::multiplied_weights(*architecture))
      needed.insert(id.tensor);
    needed.erase(architecture->head_name());
  }
  for (const auto& [id, signal] : signals.matrices) needed.insert(id.tensor);
  std::vector<gguf::Matrix> matrices;
  for (const auto& planned : plan.tensors) {
    if (planned.action != quantize::Action::kSolve || !needed.contains(planned.source->name))
      continue;
    const auto of_tensor = gguf::matrices_of(*planned.source);
    matrices.insert(matrices.end(), of_tensor.begin(), of_tensor.end());
  }
  calibrate::require_fit(signals, matrices, options.signals_file);
}

/// At most n_tokens of the windows, spread evenly.
calibrate::Windows some_of(const calibrate::Windows& windows, std::size_t n_tokens) {
  const std::size_t wanted = std::max<std::size_t>(1, n_tokens / windows[0].size());
  if (windows.size() <= wanted) return windows;
  calibrate::Windows some;
  for (std::size_t i = 0; i < wanted; ++i) some.push_back(windows[i * windows.size() / wanted]);
  return some;
}

}  // namespace

Calibration read_calibration(const gguf::File& file, const quantize::Plan& plan,
                             const QuantizeOptions& options, const Progress& progress) {
  Calibration out;
  if (options.method == Method::kPlain) return out;
  if (!options.signals_file.empty()) {
    out.signals = calibrate::is_imatrix(options.signals_file)
                      ? calibrate::load_imatrix(options.signals_file)
                      : calibrate::load_signals(options.signals_file);
    require_signals_fit(*out.signals, file, plan, options);
    warn_about_importance(*out.signals, options.method, options.plan.type, progress);
    out.facts = {out.signals->description, out.signals->text_hash, out.signals->n_tokens};
    return out;
  }
  out.model = std::make_unique<model::Model>(
      file, model::ModelOptions{.device = device_of(options.device, options.group.local_rank())});
  out.text = load_text(file, options.calibration, progress);
  return out;
}

void complete_calibration(Calibration& calibration, WorkFolder* work,
                          const QuantizeOptions& options, const Progress& progress) {
  if (!calibration.model) return;
  const CalibrationSource& source = options.calibration;
  if (source.self_tokens > 0) {
    const auto n = static_cast<std::size_t>(n_samples(source)),
               length = static_cast<std::size_t>(source.window_tokens);
    OwnSamples samples = own_samples(work, kSamplesFile, n, length, options.group, [&] {
      return write_samples(*calibration.model, source, options.seed, progress, options.group);
    });
    if (samples.kept)
      report(progress,
             {"sample", options.output, n * length, n * length, "tokens of an earlier run"});
    add_samples(calibration.text, std::move(samples.windows));
    calibration.model->weights().release("");  // writing decodes the whole model
  }
  calibration.facts = {
      calibration.text.description, calibration.text.hash,
      static_cast<std::int64_t>(calibration.text.windows.size()) * source.window_tokens};
}

std::vector<std::string> find_without_signal(const Calibration& calibration, const gguf::File& file,
                                             const quantize::Plan& plan) {
  if (!calibration.model && !calibration.signals) return {};
  std::set<gguf::MatrixId> known;
  if (calibration.signals) {
    for (const auto& [id, signal] : calibration.signals->matrices) known.insert(id);
  }
  if (model::is_supported(file)) {
    const auto architecture = model::make_architecture(file);
    if (calibration.model) known = model::gathered_weights(*architecture);
    // looked up, not multiplied by: its rows need no signal
    if (!architecture->tied()) known.insert(architecture->embedding_name());
  }
  std::vector<std::string> names;
  for (const auto& planned : plan.tensors) {
    if (planned.action != quantize::Action::kSolve) continue;
    for (const gguf::Matrix& matrix : gguf::matrices_of(*planned.source))
      if (!known.contains(matrix.id())) names.push_back(matrix.id().text());
  }
  return names;
}

std::size_t tokens_of_static_signals(std::size_t hidden_size) {
  return std::max<std::size_t>(24576, 32 * hidden_size);
}

calibrate::Signals collect_signals(const Calibration& calibration, const QuantizeOptions& options,
                                   const calibrate::Spill& spill, const Progress& progress) {
  const bool sequential =
      options.method == Method::kSpectral && options.moments == Moments::kSequential;
  calibrate::CollectOptions collect;
  collect.seed = options.seed;
  collect.group = options.group;
  collect.spill = spill;
  collect.output_moments = options.method == Method::kSpectral && options.two_sided;
  collect.only_head = sequential;
  if (collect.only_head && !collect.output_moments && !calibration.model->architecture().tied())
    return {};
  if (!sequential)
    return calibrate::collect(*calibration.model, calibration.text.windows, collect, progress);
  const std::size_t tokens = tokens_of_static_signals(
      static_cast<std::size_t>(calibration.model->architecture().hidden_size()));
  return calibrate::collect(*calibration.model, some_of(calibration.text.windows, tokens), collect,
                            progress);
}

}  // namespace spectralquant::pipeline
