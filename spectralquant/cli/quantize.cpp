// spectralquant quantize IN.gguf -o OUT.gguf: the main job.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/options.h"
#include "spectralquant/cli/together.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/estimate.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/quantize_file.h"

namespace spectralquant::cli {
namespace {

using pipeline::Method;

struct QuantizeArguments {
  CommonOptions common;
  pipeline::QuantizeOptions options;
  bool dry_run = false;
};

bool asks_for_best(const CLI::App& verb) {
  return verb.count("--effort") > 0 && verb.get_option("--effort")->as<std::string>() == "best";
}

/// Text where the method needs some and none is given, and own samples beside it for the best on a
/// CPU, where tuning adds few.
void choose_calibration(const CLI::App& verb, pipeline::QuantizeOptions& options) {
  if (options.method == Method::kPlain || !options.signals_file.empty()) return;
  pipeline::CalibrationSource& source = options.calibration;
  if (pipeline::source_words(source).empty())
    pipeline::choose_default_text(source, gguf::File::open(options.input), options.device);
  if (asks_for_best(verb) && options.device.starts_with("cpu") && source.self_tokens == 0)
    pipeline::add_source(source, "self");
}

using pipeline::QuantizeEstimate;

std::string plan_json(const pipeline::QuantizeOptions& options, const quantize::Plan& plan,
                      const QuantizeEstimate& estimate) {
  nlohmann::json out = {
      {"input", options.input},
      {"output", options.output},
      {"output_bytes", estimate.output_bytes},
      {"file_bpw", estimate.file_bpw},
      {"matrix_bpw", estimate.matrix_bpw},
      {"calibration_tokens", estimate.calibration_tokens},
      {"peak_memory_bytes", estimate.peak_memory_bytes},
      {"seconds", estimate.seconds},
      {"warnings", estimate.warnings},
      {"seed", options.seed},
      {"options", nlohmann::json::parse(pipeline::options_json(options))},
  };
  if (estimate.peak_device_bytes > 0) out["peak_device_bytes"] = estimate.peak_device_bytes;
  for (const auto& tensor : plan.tensors) {
    out["tensors"].push_back({{"name", tensor.source->name},
                              {"shape", tensor.source->shape_text()},
                              {"from", gguf::traits(tensor.source->type).name},
                              {"to", gguf::traits(tensor.type).name}});
  }
  return json_text(out, 2);
}

void print_plan(const QuantizeArguments& arguments) {
  Console console(arguments.common.quiet);
  prepare_engine(arguments.common, console);
  const auto estimate = pipeline::estimate(arguments.options, console.progress());
  const auto file = gguf::File::open(arguments.options.input);
  const auto plan = quantize::make_plan(file, arguments.options.plan);
  if (arguments.common.json) {
    print_document(plan_json(arguments.options, plan, estimate) + "\n");
    return;
  }
  for (const auto& tensor : plan.tensors) {
    print("{:<34} {:>18}  {:>5} -> {}\n", tensor.source->name, tensor.source->shape_text(),
          gguf::traits(tensor.source->type).name, gguf::traits(tensor.type).name);
  }
  print("\noutput       {}, {:.2f} bits a weight in all, {:.2f} in matrices\n",
        human_bytes(estimate.output_bytes), estimate.file_bpw, estimate.matrix_bpw);
  if (estimate.calibration_tokens > 0)
    print("calibration  {} tokens\n", estimate.calibration_tokens);
  print("estimates    good to a factor of two\n");
  print("peak memory  about {}\n", human_bytes(estimate.peak_memory_bytes));
  if (estimate.peak_device_bytes > 0)
    print("GPU memory   about {}\n", human_bytes(estimate.peak_device_bytes));
  print("time         about {}\n", human_seconds(estimate.seconds));
}

/// "strict Q4_K", or why not.
std::string verdict(const pipeline::QuantizeOptions& options,
                    const pipeline::QuantizeReport& report) {
  const std::string_view type = gguf::traits(options.plan.type).name;
  if (report.strict) return fmt::format("strict {}", type);
  const std::size_t n = report.violations.size();
  return fmt::format("not strict: {} {} not {} (first: {})", n,
                     n == 1 ? "matrix is" : "matrices are", type,
                     n ? report.violations.front() : "none");
}

void say_tuning(Console& console, const tune::DistillReport& tuning) {
  console.say(fmt::format(
      "tuning     KL {:.4f} after {} tokens in {} stages, {:.4f} as solved, on text held aside: "
      "the {} file is written",
      tuning.held_end, tuning.n_tokens, tuning.stages_done, tuning.held_start,
      tuning.gained() ? "tuned" : "solved"));
}

void say_result(Console& console, const pipeline::QuantizeOptions& options,
                const pipeline::QuantizeReport& report) {
  double ours = 0, plain = 0, imatrix = 0, total_seconds = 0;
  for (const auto& m : report.matrices)
    ours += m.objective, plain += m.plain_objective, imatrix += m.imatrix_objective;
  std::string phases;
  for (const auto& [phase, seconds] : report.phase_seconds) {
    phases += fmt::format("{}{} {}", phases.empty() ? "" : ", ", phase, human_seconds(seconds));
    total_seconds += seconds;
  }
  console.say(fmt::format(
      "wrote      {}  {}, {:.2f} bits a weight in {} ({:.2f} with the F32 tensors), {}",
      options.output, human_bytes(report.output_bytes), report.matrix_bpw,
      report.strict ? "every matrix" : "the matrices", report.file_bpw, verdict(options, report)));
  if (plain > 0 && imatrix > 0 && options.method == Method::kSpectral) {
    console.say(fmt::format(
        "error      {:.0f}% of plain rounding's, {:.0f}% of imatrix rounding's (as the "
        "solver weighs errors, summed over matrices{})",
        100 * ours / plain, 100 * ours / imatrix, report.tuning ? ", before tuning" : ""));
  }
  if (const auto& names = report.without_signal; !names.empty()) {
    console.say(fmt::format(
        "no signal  {} of the matrices are rounded for the least squared error: {}{}", names.size(),
        fmt::join(names.begin(), names.begin() + std::min<std::ptrdiff_t>(3, std::ssize(names)),
                  ", "),
        names.size() > 3 ? ", ..." : ""));
  }
  if (report.tuning) say_tuning(console, *report.tuning);
  console.say(fmt::format("time       {} ({})", human_seconds(total_seconds), phases));
}

void run(const CLI::App& verb, QuantizeArguments& arguments) {
  read_options(verb, arguments.options);
  choose_calibration(verb, arguments.options);
  if (arguments.dry_run) return print_plan(arguments);
  if (arguments.options.output.empty())
    throw Error(ErrorCode::kBadUsage, "no output file given", "",
                "add -o OUT.gguf (or --dry-run to see the plan)");
  run_together(arguments.common, [&](const distribute::Group& group) {
    Console console(arguments.common.quiet || !group.leads());
    if (asks_for_best(verb) && arguments.options.tune.tokens == 0) {
      console.say(
          "best       tuning a model of this size wants a GPU (--device cuda); here this is "
          "--effort standard, with text that the model writes itself beside yours (--tune TOKENS "
          "tunes all the same)");
    }
    pipeline::QuantizeOptions options = arguments.options;
    options.group = group;
    options.n_threads = arguments.common.n_threads;
    if (options.method != Method::kPlain) prepare_engine(arguments.common, console);
    const auto report = pipeline::quantize_file(options, console.progress());
    if (!group.leads()) return;
    say_result(console, options, report);
    if (arguments.common.json) print_document(pipeline::report_json(options, report) + "\n");
  });
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto arguments = std::make_shared<QuantizeArguments>();
  auto& options = arguments->options;
  auto* verb = app.add_subcommand("quantize",
                                  "Turn a BF16/F16/F32 GGUF into a strict Q4_K_M GGUF, or one of "
                                  "another type, that behaves like it");
  verb->add_option("input", options.input, "GGUF to quantize; of a split set, the first file")
      ->required()
      ->type_name("FILE");
  verb->add_option("-o,--output", options.output, "GGUF to write")->type_name("FILE");
  add_common(*verb, arguments->common, true);
  add_options(*verb, all_flags());
  verb->add_flag(
      "--force", options.overwrite,
      "replace an existing output file, and throw away the work of an unfinished run with "
      "other options");
  verb->add_flag("--dry-run", arguments->dry_run,
                 "check everything and print the plan: types, size, memory, time; write nothing");
  verb->footer(
      "The result is a function of input, options, seed and thread count; all of them are written "
      "into its metadata.\n"
      "Examples:\n"
      "  spectralquant quantize model-bf16.gguf -o model-q4km.gguf\n"
      "  spectralquant quantize model-bf16.gguf -o model-q4km.gguf --calibration 'texts/*.jsonl' "
      "self:65536\n"
      "  spectralquant quantize model-bf16.gguf -o pure.gguf --method plain");
  verb->callback([verb, arguments] { run(*verb, *arguments); });
}

}  // namespace spectralquant::cli
