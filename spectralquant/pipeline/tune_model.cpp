#include "spectralquant/pipeline/tune_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/writer.h"
#include "spectralquant/model/sampling.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/own_samples.h"

namespace spectralquant::pipeline {
namespace {

/// Of the calibration text: every so many windows one is held aside, and no more tokens than tell
/// two states apart.
constexpr std::size_t kHeldAsideEvery = 16, kHeldAsideTokens = 32768;

/// Seeds of samples drawn for tuning; calibration's own are drawn from the seed itself.
constexpr std::uint64_t kTuningSeed = 0x74756e65;

constexpr const char* kTuningSamplesFile = "tuning_samples";  ///< in the work folder

/// Windows the model is to write, so that none is repeated more often than allowed.
std::int64_t n_missing(const tune::DistillOptions& options, const tune::Text& text) {
  const auto window_tokens = static_cast<std::int64_t>(text.held_aside.front().size());
  const std::int64_t own = tune::mix(tune::run_windows(options, window_tokens),
                                     static_cast<std::int64_t>(text.files.size()),
                                     options.own_share, options.max_file_epochs)
                               .own_windows;
  return std::max<std::int64_t>(0, (own + options.max_own_epochs - 1) / options.max_own_epochs -
                                       static_cast<std::int64_t>(text.own.size()));
}

/// Adds own samples to the text: those an earlier run left, or new ones.
void sample_more(const Run& run, WorkFolder* work, tune::Text& text, torch::Device device) {
  const std::int64_t missing = n_missing(run.options.tune, text);
  if (missing == 0) return;
  run.times.enter("sample");
  OwnSamples samples =
      own_samples(work, kTuningSamplesFile, static_cast<std::size_t>(missing),
                  text.held_aside.front().size(), run.options.group, [&] {
                    model::Model model(
                        run.file, {device, device.is_cpu() ? torch::kFloat32 : torch::kBFloat16});
                    model::SamplingOptions sampling = sampling_options(
                        run.file, run.options.calibration, run.options.seed + kTuningSeed);
                    sampling.group = run.options.group;
                    return model::sample(model, missing, sampling, run.progress);
                  });
  text.own.insert(text.own.end(), std::make_move_iterator(samples.windows.begin()),
                  std::make_move_iterator(samples.windows.end()));
}

nlohmann::ordered_json to_json(const tune::DistillReport& report) {
  return {{"steps", report.steps_done},
          {"stages", report.stages_done},
          {"tokens", report.n_tokens},
          {"held_aside_kl", {report.held_start, report.held_end}},
          {"kept", report.gained() ? "tuned" : "solved"}};
}

}  // namespace

void require_windows_to_tune(std::int64_t n_windows) {
  if (n_windows < 2)
    throw Error(ErrorCode::kBadUsage, "one window of calibration text is too little for tuning", {},
                "give more text, or shorter windows");
}

tune::Text split_text(const calibrate::Windows& windows, std::size_t n_from_files) {
  tune::Text text;
  const std::size_t every = std::max({std::size_t{2}, std::min(kHeldAsideEvery, windows.size()),
                                      windows.size() * windows.front().size() / kHeldAsideTokens});
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const bool aside = i % every == every / 2;
    (aside ? text.held_aside : i < n_from_files ? text.files : text.own).push_back(windows[i]);
  }
  return text;
}

void tune_and_commit(const Run& run, const std::string& solved_path, WorkFolder* work,
                     tune::Text text, gguf::Metadata metadata) {
  const QuantizeOptions& options = run.options;
  const torch::Device device = device_of(options.device, options.group.local_rank());
  const gguf::File solved = gguf::File::open(solved_path);
  sample_more(run, work, text, device);
  run.times.enter("tune");
  tune::DistillOptions tuning = options.tune;
  tuning.seed = options.seed;
  tuning.group = options.group;
  tune::DistillReport& report = run.report.tuning.emplace();
  const tune::TensorBytes tuned =
      tune::distill(run.file, solved, text, tuning, device,
                    work ? work->file("checkpoint.gguf") : "", solved.hash(), report, run.progress);
  if (!work) return;
  run.times.enter("write");
  metadata.set("spectralquant.tuning", gguf::Value::of_string(json_text(to_json(report))));
  std::vector<gguf::TensorPlan> plans;
  for (const gguf::Tensor& tensor : solved.tensors())
    plans.push_back({tensor.name, tensor.type, tensor.n_dims, tensor.shape});
  gguf::WriteOptions write;
  write.overwrite = options.overwrite;
  write.alignment = solved.alignment();
  gguf::Writer writer(options.output, metadata, plans, write, run.file.paths());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const gguf::Tensor& tensor = solved.tensors()[i];
    const auto it = tuned.find(tensor.name);
    writer.write(i, 0, it == tuned.end() ? tensor.data : it->second.data(), tensor.size_bytes);
  }
  writer.commit(require_all_finite);
}

}  // namespace spectralquant::pipeline
