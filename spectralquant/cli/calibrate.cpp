// spectralquant calibrate MODEL -o SIGNALS: gathers moments once, for many runs of quantize.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/calibrate/signal_checks.h"
#include "spectralquant/calibrate/signals.h"
#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/options.h"
#include "spectralquant/cli/together.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/loadable.h"
#include "spectralquant/gguf/mapping.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/model/model.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/option_table.h"
#include "spectralquant/text/corpus.h"

namespace spectralquant::cli {
namespace {

struct CalibrateArguments {
  CommonOptions common;
  pipeline::CalibrationSource calibration;
  std::string model, output, imatrix;
  bool output_moments = false, overwrite = false;
};

/// Found before the long work: an output that is an input, or both outputs in one file, would cost
/// the user a file.
void check_outputs(const CalibrateArguments& arguments, model::Model& model) {
  if (arguments.output == arguments.imatrix)
    throw Error(ErrorCode::kBadUsage, "both outputs have one name", arguments.output,
                "give them two");
  std::vector<std::string> inputs = text::expand_patterns(arguments.calibration.files);
  const gguf::File& file = model.weights().file();
  inputs.insert(inputs.end(), file.paths().begin(), file.paths().end());
  if (!arguments.output.empty())
    pipeline::check_output(
        arguments.output, inputs, arguments.overwrite,
        calibrate::size_bytes_of_signals(model.architecture(), file, arguments.output_moments));
  if (!arguments.imatrix.empty())
    pipeline::check_output(arguments.imatrix, inputs, arguments.overwrite);
}

void gather(const CalibrateArguments& arguments, const distribute::Group& group) {
  Console console(arguments.common.quiet || !group.leads());
  prepare_engine(arguments.common, console);
  const auto file = gguf::File::open(arguments.model);
  if (model::is_supported(file)) gguf::require_loadable(file);  // else refused for what it is
  model::Model model(file,
                     {.device = pipeline::device_of(arguments.common.device, group.local_rank())});
  if (group.leads()) {
    check_outputs(arguments, model);
    for (const gguf::Tensor& tensor : file.tensors()) {
      gguf::require_finite(tensor, file.path());
      gguf::leave_memory(tensor, 0, tensor.n_rows());
    }
  }
  const auto text = pipeline::load_calibration(model, arguments.calibration, arguments.common.seed,
                                               console.progress(), group);
  model.weights().release("");  // own samples decode the whole model
  calibrate::CollectOptions options;
  options.output_moments = arguments.output_moments;
  options.seed = arguments.common.seed;
  options.group = group;
  options.spill.folder =
      gguf::folder_of(arguments.output.empty() ? arguments.imatrix : arguments.output);
  auto signals = calibrate::collect(model, text.windows, options, console.progress());
  if (!group.leads()) return;
  const auto use =
      arguments.imatrix.empty() ? pipeline::Method::kSpectral : pipeline::Method::kImatrix;
  pipeline::warn_about_importance(signals, use, gguf::Type::Q4_K, console.progress());
  pipeline::warn_about_idle_experts(calibrate::find_idle_experts(signals), console.progress());
  signals.text_hash = text.hash;
  signals.model_hash = file.hash();
  signals.description = text.description;
  if (!arguments.output.empty()) {
    calibrate::save_signals(signals, arguments.output, arguments.overwrite);
    console.say("wrote      " + arguments.output);
  }
  if (!arguments.imatrix.empty()) {
    calibrate::save_imatrix(signals, arguments.imatrix, arguments.calibration.window_tokens,
                            arguments.overwrite);
    console.say("wrote      " + arguments.imatrix);
  }
  if (arguments.common.json) {
    const nlohmann::json out = {{"matrices", signals.matrices.size()},
                                {"tokens", signals.n_tokens},
                                {"text_hash", signals.text_hash}};
    print_document(json_text(out, 2) + "\n");
  }
}

void run(const CLI::App& verb, CalibrateArguments& arguments) {
  pipeline::QuantizeOptions options;
  read_options(verb, options);
  pipeline::check_ranges(options);
  arguments.calibration = options.calibration;
  if (arguments.output.empty() && arguments.imatrix.empty())
    throw Error(ErrorCode::kBadUsage, "no output file given", "",
                "add -o SIGNALS.gguf, or --imatrix FILE, or both");
  if (pipeline::source_words(arguments.calibration).empty()) {
    pipeline::choose_default_text(arguments.calibration, gguf::File::open(arguments.model),
                                  arguments.common.device);
  }
  run_together(arguments.common, [&](const distribute::Group& group) { gather(arguments, group); });
}

}  // namespace

void add_calibrate(CLI::App& app) {
  auto arguments = std::make_shared<CalibrateArguments>();
  auto* verb = app.add_subcommand("calibrate",
                                  "Gather the moments of every matrix once, for quantize --signals "
                                  "or llama-quantize --imatrix");
  verb->add_option("model", arguments->model, "GGUF to run")->required()->type_name("FILE");
  verb->add_option("-o,--output", arguments->output,
                   "signals file to write, for quantize --signals")
      ->type_name("FILE");
  verb->add_option("--imatrix", arguments->imatrix,
                   "imatrix GGUF to write, for stock llama-quantize --imatrix (the head included)")
      ->type_name("FILE");
  add_options(*verb, {"calibration", "self-temperature", "window", "max-tokens"});
  verb->add_flag("--output-moments", arguments->output_moments,
                 "also moments of output gradients: how the output distribution depends on each "
                 "matrix (one backward pass)");
  verb->add_flag("--force", arguments->overwrite, "replace existing files");
  add_common(*verb, arguments->common, true);
  verb->footer(
      "Example:\n  spectralquant calibrate model-bf16.gguf -o model.signals.gguf --imatrix "
      "model.imatrix.gguf --calibration 'texts/*.jsonl'");
  verb->callback([verb, arguments] { run(*verb, *arguments); });
}

}  // namespace spectralquant::cli
