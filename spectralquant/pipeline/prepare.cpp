#include "spectralquant/pipeline/prepare.h"

#include <fmt/format.h>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/core/version.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/tune_model.h"
#include "spectralquant/pipeline/work_folder.h"

namespace spectralquant::pipeline {
namespace {

/// Options are checked before the first file is opened.
gguf::File open_input(const QuantizeOptions& options) {
  check_options(options);
  prepare_backward(device_of(options.device, options.group.local_rank()));
  return gguf::File::open(options.input);
}

/// Disk space that a run still needs: solved matrices are kept beside the output until it is done,
/// and with tuning the solved file is, too.
std::uint64_t needed_bytes(const quantize::Plan& plan, const QuantizeOptions& options) {
  std::uint64_t kept = options.method == Method::kSpectral ? plan.output_bytes : 0;
  if (options.tune.tokens > 0) kept += plan.output_bytes;
  const std::uint64_t there = WorkFolder::size_bytes(options.output);
  return plan.output_bytes + (kept > there ? kept - there : 0);
}

void check_files(const gguf::File& file, const quantize::Plan& plan, const QuantizeOptions& options,
                 const Progress& progress) {
  // a model that cannot be run is refused for this, not for a key that its architecture may lack
  if (options.method != Method::kPlain && options.signals_file.empty() &&
      !model::is_supported(file))
    model::make_architecture(file);
  check_input(file, plan);
  if (options.group.leads()) {
    if (!options.output.empty())
      check_output(options.output, input_paths(file, options), options.overwrite,
                   needed_bytes(plan, options));
    check_values(file, plan, options, progress);
  }
}

std::string hash_of_job(const std::string& about, const gguf::File& file,
                        const Calibration& calibration, const QuantizeOptions& options) {
  const auto hash_if_any = [](const std::string& path) {
    return path.empty() ? std::string() : hash_file(path);
  };
  Hasher hasher;
  for (const std::string& part :
       {std::string(kVersion), about, std::to_string(options.seed), file.hash(),
        calibration.text.hash,
        options.method == Method::kPlain ? "" : hash_if_any(options.signals_file)})
    hasher.update(part).update("\n");
  return hasher.hex();
}

}  // namespace

Preparation::Preparation(const QuantizeOptions& options, const Progress& progress)
    : file(open_input(options)), plan(quantize::make_plan(file, options.plan)) {
  check_files(file, plan, options, progress);
  calibration = read_calibration(file, plan, options, progress);
  if (options.tune.tokens > 0)
    require_windows_to_tune(static_cast<std::int64_t>(calibration.text.windows.size()) +
                            n_samples(options.calibration));
  about = options_json(options);
  work_key = hash_of_job(about, file, calibration, options);
  if (options.group.broadcast(work_key, 0) != work_key) {
    throw bad_input(
        "the processes were given different inputs, texts or options",
        fmt::format("process {} of {}", options.group.rank(), options.group.size()),
        "start all of them with the same command, and with the same files on every machine");
  }
  if (options.group.leads() && !options.output.empty())
    WorkFolder::require_usable(options.output, work_key, options.overwrite);
}

}  // namespace spectralquant::pipeline
