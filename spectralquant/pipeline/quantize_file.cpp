#include "spectralquant/pipeline/quantize_file.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <optional>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/matrix_writer.h"
#include "spectralquant/pipeline/phase_times.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/solve_model.h"
#include "spectralquant/pipeline/tune_model.h"

namespace spectralquant::pipeline {
namespace {

constexpr const char* kSolvedFile = "solved.gguf";  ///< in the work folder, what tuning starts from

/// Threads of torch's operators and BLAS while a job runs; back to what they were afterwards.
class TorchThreads {
 public:
  explicit TorchThreads(int n_threads) : before_(at::get_num_threads()) { model::set_threads(n_threads); }
  ~TorchThreads() { model::set_threads(before_); }
  TorchThreads(const TorchThreads&) = delete;
  TorchThreads& operator=(const TorchThreads&) = delete;

 private:
  int before_;
};

/// Calibration of a job: text with the model it is for, or signals; neither for plain rounding.
struct Calibration {
  std::unique_ptr<model::Model> model;
  calibrate::Windows windows;
  std::size_t n_from_files = 0;
  std::optional<calibrate::Signals> signals;
  CalibrationFacts facts;
};

/// Signals from a file must know every matrix; an embedding or a head may be missing, as in a stock imatrix.
void require_signals_fit(const calibrate::Signals& signals, const gguf::File& file, const quantize::Plan& plan, const QuantizeOptions& options) {
  if (!signals.model_hash.empty() && signals.model_hash != file.hash()) {
    throw bad_input("these signals are of another model", options.signals_file, "use signals gathered on this model");
  }
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> sizes;
  for (const auto& planned : plan.tensors) {
    if (planned.action != quantize::Action::kSolve) continue;
    const gguf::Tensor& source = *planned.source;
    const bool may_be_missing = source.name == "token_embd.weight" || source.name == "output.weight";
    if (may_be_missing && !signals.matrices.contains(source.name)) continue;
    sizes[source.name] = {static_cast<std::int64_t>(source.shape[1]), static_cast<std::int64_t>(source.n_cols())};
  }
  calibrate::require_fit(signals, sizes, options.signals_file);
}

Calibration prepare_calibration(const gguf::File& file, const quantize::Plan& plan, const QuantizeOptions& options, const Progress& progress) {
  Calibration out;
  if (options.method == Method::kPlain) return out;
  if (!options.signals_file.empty()) {
    out.signals = calibrate::is_imatrix(options.signals_file) ? calibrate::load_imatrix(options.signals_file) : calibrate::load_signals(options.signals_file);
    require_signals_fit(*out.signals, file, plan, options);
    out.facts = {out.signals->description, out.signals->text_hash, out.signals->n_tokens};
    return out;
  }
  model::ModelOptions model_options;
  model_options.device = model::parse_device(options.device);
  out.model = std::make_unique<model::Model>(file, model_options);
  CalibrationText text = load_calibration(*out.model, options.calibration, options.seed, progress);
  out.facts = {text.description, text.hash, static_cast<std::int64_t>(text.windows.size()) * options.calibration.window_tokens};
  out.windows = std::move(text.windows);
  out.n_from_files = text.n_from_files;
  return out;
}

/// At most n_tokens of the windows, spread evenly.
calibrate::Windows some_of(const calibrate::Windows& windows, std::size_t n_tokens) {
  const std::size_t wanted = std::max<std::size_t>(1, n_tokens / windows[0].size());
  if (windows.size() <= wanted) return windows;
  calibrate::Windows some;
  for (std::size_t i = 0; i < wanted; ++i) some.push_back(windows[i * windows.size() / wanted]);
  return some;
}

/// Static signals as far as the method needs them.
calibrate::Signals collect_signals(const Calibration& calibration, const QuantizeOptions& options, const Progress& progress) {
  const bool sequential = options.method == Method::kSpectral && options.moments == Moments::kSequential;
  calibrate::CollectOptions collect;
  collect.seed = options.seed;
  collect.output_moments = options.method == Method::kSpectral && options.two_sided;
  collect.only_head = sequential;
  if (collect.only_head && !collect.output_moments && !calibration.model->architecture().tied()) return {};
  if (!sequential) return calibrate::collect(*calibration.model, calibration.windows, collect, progress);
  const std::size_t tokens = tokens_of_static_signals(static_cast<std::size_t>(calibration.model->architecture().hidden_size()));
  return calibrate::collect(*calibration.model, some_of(calibration.windows, tokens), collect, progress);
}

/// Rounds or solves every matrix, and writes the file.
void solve_and_commit(const Run& run, const quantize::Plan& plan, Calibration& calibration) {
  const QuantizeOptions& options = run.options;
  if (calibration.model && options.method != Method::kPlain) {
    run.times.enter("collect");
    calibration.signals = collect_signals(calibration, options, run.progress);
  }
  run.times.enter("write");
  MatrixWriter output(run.file, plan, output_metadata(run.file, options, calibration.facts, at::get_num_threads()), options);
  output.write_rest();
  Job job{options, run.file, output, run.report, run.times, run.progress};
  if (options.method != Method::kSpectral) {
    round_model(job, calibration.signals ? &*calibration.signals : nullptr);
  } else if (calibration.model && options.moments == Moments::kSequential) {
    solve_sequential(job, *calibration.model, calibration.windows, *calibration.signals);
  } else {
    solve_static(job, *calibration.signals);
  }
  run.times.enter("write");
  output.commit();
}

/// The output is read again from the disk: strict, unless a fallback type was allowed.
void verify(const QuantizeOptions& options, QuantizeReport& report) {
  const gguf::File written = gguf::File::open(options.output);
  const gguf::Inventory inventory = gguf::take_inventory(written);
  if (!inventory.strict && !options.plan.fallback) {
    const std::string first = inventory.violations.empty() ? "no matrix is Q4_K" : inventory.violations.front();
    throw Error(ErrorCode::kFailed, "the written file is not strict: " + first, options.output, "please report this as a bug");
  }
  report.output_bytes = inventory.file_bytes;
  report.file_bpw = inventory.file_bpw;
  report.matrix_bpw = inventory.matrix_bpw;
  report.output_hash = written.hash();
}

}  // namespace

QuantizeReport quantize_file(const QuantizeOptions& options, const Progress& progress) {
  check_options(options);
  if (options.output.empty()) throw Error(ErrorCode::kBadUsage, "no output file", {}, "name the file to write");
  QuantizeReport report;
  PhaseTimes times;
  times.enter("open");
  const TorchThreads threads(options.n_threads);
  const gguf::File file = gguf::File::open(options.input);
  const quantize::Plan plan = quantize::make_plan(file, options.plan);
  check_input(file, plan, options);
  check_output(file, options, plan.output_bytes);
  check_finite(file, options.n_threads, progress);
  if (!options.start_file.empty()) require_start(options.start_file, plan);

  times.enter("calibrate");
  Calibration calibration = prepare_calibration(file, plan, options, progress);
  report.calibration_tokens = calibration.facts.n_tokens;

  // With tuning, the solved file is a stage on the way, kept for a later run to go on from.
  std::optional<WorkFolder> work;
  QuantizeOptions solving = options;
  tune::Text text;
  if (options.tune.tokens > 0) {
    text = split_text(calibration.windows, calibration.n_from_files);
    work.emplace(options.output, job_key(file, options, calibration.facts.hash), options_json(options), options.overwrite);
    solving.output = options.start_file.empty() ? work->file(kSolvedFile) : options.start_file;
    solving.overwrite = true;
    solving.tune = {};
  }
  if (options.start_file.empty() && !(work && work->find(kSolvedFile))) solve_and_commit({solving, file, report, times, progress}, plan, calibration);
  if (work) {
    calibration.model.reset();
    calibration.signals.reset();
    tune_and_commit({options, file, report, times, progress}, solving.output, *work, std::move(text),
                    output_metadata(file, options, calibration.facts, at::get_num_threads()));
    work->remove();
  }
  times.enter("verify");
  verify(options, report);
  report.phase_seconds = times.finish();
  return report;
}

}  // namespace spectralquant::pipeline
