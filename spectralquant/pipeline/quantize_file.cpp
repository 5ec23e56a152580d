#include "spectralquant/pipeline/quantize_file.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/core/warning.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/model/threads.h"
#include "spectralquant/pipeline/calibration.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/matrix_writer.h"
#include "spectralquant/pipeline/phase_times.h"
#include "spectralquant/pipeline/prepare.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/solve_model.h"
#include "spectralquant/pipeline/solve_tasks.h"
#include "spectralquant/pipeline/tune_model.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {
namespace {

constexpr const char* kSolvedFile = "solved.gguf";  ///< in the work folder, what tuning starts from

/// Threads of torch's operators and BLAS while a job runs; back to what they were afterwards.
class TorchThreads {
 public:
  explicit TorchThreads(int n_threads) : before_(at::get_num_threads()) {
    model::set_threads(n_threads);
  }
  ~TorchThreads() { model::set_threads(before_); }
  TorchThreads(const TorchThreads&) = delete;
  TorchThreads& operator=(const TorchThreads&) = delete;

 private:
  int before_;
};

/// What an earlier run of this job solved, told to all processes.
std::set<gguf::MatrixId> agree_on_solved(const WorkFolder* work, const quantize::Plan& plan,
                                         const distribute::Group& group) {
  nlohmann::json own = nlohmann::json::array();
  if (work)
    for (const gguf::MatrixId& id : find_solved(*work, plan)) own.push_back(id.text());
  std::set<gguf::MatrixId> solved;
  for (const std::string text : nlohmann::json::parse(group.broadcast(json_text(own), 0)))
    solved.insert(gguf::MatrixId::parse(text));
  return solved;
}

/// Where moments lie that are not needed yet: in the work folder; of a process without one, beside
/// the output if that folder is on its machine.
calibrate::Spill spill_of(WorkFolder* work, const QuantizeOptions& options) {
  if (work) {
    work->file("");  // makes the folder
    return {.folder = work->path()};
  }
  namespace fs = std::filesystem;
  const std::string beside = gguf::folder_of(options.output);
  std::error_code ignored;
  const bool usable = !options.output.empty() && fs::is_directory(beside, ignored);
  return {.folder = usable ? beside : fs::temp_directory_path().string()};
}

/// As far as the reports of matrices tell.
std::vector<calibrate::IdleExperts> idle_experts(const std::vector<MatrixReport>& reports) {
  calibrate::Signals counts;
  for (const MatrixReport& report : reports)
    if (report.token_share) counts.matrices[report.id].n_tokens = *report.token_share > 0 ? 1 : 0;
  return calibrate::find_idle_experts(counts);
}

/// Rounds or solves every matrix, and writes the file.
void solve_and_commit(const Run& run, const quantize::Plan& plan, Calibration& calibration,
                      WorkFolder* work, const calibrate::Spill& spill) {
  const QuantizeOptions& options = run.options;
  const std::set<gguf::MatrixId> solved = agree_on_solved(work, plan, options.group);
  if (!solved.empty())
    report(run.progress,
           {"resume", options.output, solved.size(), solved.size(), "solved matrices"});
  const auto is_left = [&](const quantize::PlannedTensor& planned) {
    if (planned.action != quantize::Action::kSolve) return false;
    const auto matrices = gguf::matrices_of(*planned.source);
    return std::any_of(matrices.begin(), matrices.end(),
                       [&](const gguf::Matrix& matrix) { return !solved.contains(matrix.id()); });
  };
  if (calibration.model && std::any_of(plan.tensors.begin(), plan.tensors.end(), is_left)) {
    run.times.enter("collect");
    calibration.signals = collect_signals(calibration, options, spill, run.progress);
    warn_about_importance(*calibration.signals, options.method, options.plan.type, run.progress);
  }
  run.times.enter("write");
  MatrixWriter output(run.file, plan,
                      output_metadata(run.file, options, calibration.facts, at::get_num_threads()),
                      options);
  output.write_rest();
  Job job{options, run.file, output, work, spill, solved, run.report, run.times, run.progress};
  if (options.method != Method::kSpectral) {
    round_model(job, calibration.signals ? &*calibration.signals : nullptr);
  } else if (calibration.model && options.moments == Moments::kSequential) {
    solve_sequential(job, *calibration.model, calibration.text.windows,
                     std::exchange(calibration.signals, {}).value_or(calibrate::Signals{}));
  } else {
    solve_static(job, calibration.signals.value_or(calibrate::Signals{}));
  }
  warn_about_idle_experts(idle_experts(run.report.matrices), run.progress);
  run.times.enter("write");
  output.commit();
}

/// A file of this process alone, removed at the end: what the first process has in its work folder.
class PrivateFile {
 public:
  PrivateFile()
      : path_((std::filesystem::temp_directory_path() /
               fmt::format("spectralquant-{}.gguf", ::getpid()))
                  .string()) {}
  ~PrivateFile() { ::unlink(path_.c_str()); }
  PrivateFile(const PrivateFile&) = delete;
  PrivateFile& operator=(const PrivateFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// The output is read again from the disk: strict, unless a fallback type was allowed.
void verify(const QuantizeOptions& options, QuantizeReport& report) {
  const gguf::File written = gguf::File::open(options.output);
  const gguf::Inventory inventory = gguf::take_inventory(written);
  const bool strict = inventory.strict && inventory.matrix_type == options.plan.type;
  if (!strict && !options.plan.fallback) {
    const std::string first =
        inventory.violations.empty()
            ? fmt::format("no matrix is {}", gguf::traits(options.plan.type).name)
            : inventory.violations.front();
    throw Error(ErrorCode::kFailed, "the written file is not strict: " + first, options.output,
                "please report this as a bug");
  }
  report.output_bytes = inventory.file_bytes;
  report.file_bpw = inventory.file_bpw;
  report.matrix_bpw = inventory.matrix_bpw;
  report.strict = strict;
  report.violations = inventory.violations;
  report.output_hash = written.hash();
}

}  // namespace

QuantizeReport quantize_file(const QuantizeOptions& options, const Progress& callers_progress) {
  if (options.output.empty())
    throw Error(ErrorCode::kBadUsage, "no output file", {}, "name the file to write");
  const distribute::Group& group = options.group;
  QuantizeReport report;
  const Progress progress = [&](const ProgressEvent& event) {
    if (!group.alone()) group.check();
    if (event.phase == kWarning) report.warnings.emplace_back(event.item);
    spectralquant::report(callers_progress, event);
  };
  PhaseTimes times;
  times.enter("open");
  const TorchThreads threads(options.n_threads);
  Preparation job(options, progress);
  const gguf::File& file = job.file;
  const quantize::Plan& plan = job.plan;
  Calibration& calibration = job.calibration;
  std::optional<WorkFolder> own_work;  // the first process has one
  if (group.leads()) own_work.emplace(options.output, job.work_key, job.about, options.overwrite);
  WorkFolder* const work = own_work ? &*own_work : nullptr;

  times.enter("calibrate");
  complete_calibration(calibration, work, options, progress);
  report.calibration_tokens = calibration.facts.n_tokens;
  report.without_signal = find_without_signal(calibration, file, plan);

  // With tuning, the solved file is a stage on the way: every process needs it.
  const bool tuned = options.tune.tokens > 0;
  QuantizeOptions solving = options;
  tune::Text text;
  std::optional<PrivateFile> copy;
  if (tuned) {
    text = split_text(calibration.text.windows, calibration.text.n_from_texts);
    // Text held aside tells how the file does where it was not fitted: the solver does not see it
    // either.
    calibration.text.windows = text.files;
    calibration.text.windows.insert(calibration.text.windows.end(), text.own.begin(),
                                    text.own.end());
    if (!work) copy.emplace();
    solving.output = work ? work->file(kSolvedFile) : copy->path();
    solving.overwrite = true;
    solving.tune = {};
  } else if (!work) {
    solving.output.clear();
  }
  const bool solved_before = group.alone() && tuned && work->find(kSolvedFile);
  if (!solved_before)
    solve_and_commit({solving, file, report, times, progress}, plan, calibration, work,
                     calibration.model ? spill_of(work, options) : calibrate::Spill{});
  if (tuned) {
    calibration.model.reset();
    calibration.signals.reset();
    tune_and_commit({options, file, report, times, progress}, solving.output, work, std::move(text),
                    output_metadata(file, options, calibration.facts, at::get_num_threads()));
  }
  if (work) {
    times.enter("verify");
    verify(options, report);
    work->remove();
  }
  report.peak_device_bytes = peak_device_bytes(device_of(options.device, group.local_rank()));
  report.phase_seconds = times.finish();
  return report;
}

}  // namespace spectralquant::pipeline
