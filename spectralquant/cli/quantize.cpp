// spectralquant quantize IN.gguf -o OUT.gguf: the main job.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "spectralquant/cli/calibration_arguments.h"
#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/together.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/pipeline/estimate.h"
#include "spectralquant/pipeline/quantize_file.h"

namespace spectralquant::cli {
namespace {

using pipeline::Method;
using pipeline::Moments;

struct Arguments {
  CommonOptions common;
  CalibrationArguments calibration;
  pipeline::QuantizeOptions options;
  std::string effort = "standard";
  std::vector<std::string> without;
  std::string type = "q4_k", fallback;
  bool dry_run = false;
};

/// What --effort best tunes on: some minutes for the embedded model on two cores, and for a model
/// of a billion weights on an accelerator.
constexpr std::int64_t kBestTokens = 524288, kBestTokensOnDevice = 16777216;

/// Steps of the solver that --without leaves out, for ablations.
const std::map<std::string, void (*)(pipeline::QuantizeOptions&)> kSteps = {
    {"feedback", [](auto& o) { o.solver.feedback = false; }},
    {"live-scales", [](auto& o) { o.solver.live_scale_radius = 0; }},
    {"sweeps", [](auto& o) { o.solver.rounds = 0; }},
    {"scale-search", [](auto& o) { o.solver.scale_search = false; }},
    {"drift", [](auto& o) { o.drift_correction = 0; }},
    {"output-moments", [](auto& o) { o.two_sided = false; }},
    {"super-scales", [](auto& o) { o.solver.super_scale_search = false; }},
};

void apply_arguments(Arguments& arguments) {
  auto& options = arguments.options;
  options.calibration = to_source(arguments.calibration,
                                  options.method != Method::kPlain && options.signals_file.empty());
  options.n_threads = arguments.common.n_threads;
  options.seed = arguments.common.seed;
  options.device = arguments.common.device;
  options.two_sided = arguments.effort != "fast";
  if (arguments.effort == "best" && options.tune.tokens == 0)
    options.tune.tokens = options.device == "cpu" ? kBestTokens : kBestTokensOnDevice;
  for (const auto& step : arguments.without) kSteps.at(step)(options);
  options.plan.type = gguf::type_by_name(arguments.type).value();  // checked by the parser
  if (!arguments.fallback.empty()) {
    options.plan.fallback = gguf::type_by_name(arguments.fallback);
    if (!options.plan.fallback)
      throw Error(ErrorCode::kBadUsage, "no such type: " + arguments.fallback, "--fallback",
                  "use f16, bf16, f32 or q8_0");
  }
}

void print_plan(const Arguments& arguments) {
  const auto estimate = pipeline::estimate(arguments.options);
  const auto file = gguf::File::open(arguments.options.input);
  const auto plan = quantize::make_plan(file, arguments.options.plan);
  if (arguments.common.json) {
    nlohmann::json out;
    out["input"] = arguments.options.input;
    out["output"] = arguments.options.output;
    out["output_bytes"] = estimate.output_bytes;
    out["file_bpw"] = estimate.file_bpw;
    out["matrix_bpw"] = estimate.matrix_bpw;
    out["calibration_tokens"] = estimate.calibration_tokens;
    out["peak_memory_bytes"] = estimate.peak_memory_bytes;
    out["seconds"] = estimate.seconds;
    for (const auto& tensor : plan.tensors) {
      out["tensors"].push_back({{"name", tensor.source->name},
                                {"shape", tensor.source->shape_text()},
                                {"from", gguf::traits(tensor.source->type).name},
                                {"to", gguf::traits(tensor.type).name}});
    }
    print_document(out.dump(2) + "\n");
    return;
  }
  for (const auto& tensor : plan.tensors) {
    print("{:<34} {:>18}  {:>5} -> {}\n", tensor.source->name, tensor.source->shape_text(),
          gguf::traits(tensor.source->type).name, gguf::traits(tensor.type).name);
  }
  print("\noutput       {}, {:.2f} bits a weight in all, {:.2f} in matrices\n",
        human_bytes(estimate.output_bytes), estimate.file_bpw, estimate.matrix_bpw);
  print("calibration  about {} tokens\n", estimate.calibration_tokens);
  print("peak memory  about {}\n", human_bytes(estimate.peak_memory_bytes));
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
  if (plain > 0 && options.method == Method::kSpectral) {
    console.say(
        fmt::format("error      {:.0f}% of plain rounding's, {:.0f}% of imatrix rounding's (what "
                    "the next layer feels, summed over matrices)",
                    100 * ours / plain, 100 * ours / imatrix));
  }
  if (const auto& names = report.without_signal; !names.empty()) {
    console.say(fmt::format(
        "no signal  {} of the matrices are rounded for the least squared error: {}{}", names.size(),
        fmt::join(names.begin(), names.begin() + std::min<std::ptrdiff_t>(3, std::ssize(names)),
                  ", "),
        names.size() > 3 ? ", ..." : ""));
  }
  if (report.tuning) {
    const auto& t = *report.tuning;
    console.say(
        fmt::format("tuning     KL {:.4f} -> {:.4f} on text held aside, {:.4f} -> {:.4f} on text "
                    "tuned on, best after {} {} of {}",
                    t.held_start, t.held_end, t.calibration_start, t.calibration_end,
                    options.tune.by_block ? "block" : "step", t.best_step, t.n_steps));
  }
  console.say(fmt::format("time       {} ({})", human_seconds(total_seconds), phases));
}

void run(Arguments& arguments) {
  apply_arguments(arguments);
  if (arguments.dry_run) return print_plan(arguments);
  if (arguments.options.output.empty())
    throw Error(ErrorCode::kBadUsage, "no output file given", "",
                "add -o OUT.gguf (or --dry-run to see the plan)");
  run_together(arguments.common, [&](const distribute::Group& group) {
    Console console(arguments.common.quiet || !group.leads());
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

void add_tuning(CLI::App& verb, pipeline::QuantizeOptions& options) {
  tune::DistillOptions& tune = options.tune;
  verb.add_option("--tune", tune.tokens,
                  "tokens to tune on after solving, repetitions counted: codes, scales and F32 "
                  "tensors learn the original's output "
                  "distribution; 0: none (default 0; with --effort best 524288, on an accelerator "
                  "16777216)")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--start", options.start_file,
                  "a quantization of the input, made before, to tune instead of solving anew");
  verb.add_option("--tune-batch", tune.batch_tokens,
                  "tokens per step of tuning; 0: 4096, on an accelerator 65536")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--tune-rate", tune.rate, "factor on the learning rates")->capture_default_str();
  verb.add_option(
          "--tune-own", tune.own_share,
          "share of the model's own samples in the text tuned on; more are written as needed")
      ->capture_default_str();
  verb.add_option("--tune-clip", tune.clip, "how far from its code a weight may start, in steps")
      ->capture_default_str();
  verb.add_option("--tune-damping", tune.adam.damping,
                  "share of a tensor's mean gradient added to each denominator of Adam: what "
                  "hardly matters hardly moves")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  verb.add_flag("--tune-blocks", tune.by_block,
                "tune block by block towards the original's residual stream, for a model that does "
                "not fit whole");
  verb.add_flag("--tune-bfloat16", tune.bfloat16,
                "compute in bfloat16 while tuning; faster on an accelerator");
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto& options = arguments->options;
  auto* verb = app.add_subcommand(
      "quantize",
      "Turn a BF16/F16/F32 GGUF into a strict Q4_K_M, Q5_K_M or Q6_K GGUF that behaves like it");
  verb->add_option("input", options.input, "GGUF to quantize; of a split set, the first file")
      ->required()
      ->type_name("FILE");
  verb->add_option("-o,--output", options.output, "GGUF to write")->type_name("FILE");
  add_calibration(*verb, arguments->calibration);
  verb->add_option("--signals", options.signals_file,
                   "moments gathered before (spectralquant calibrate, or an imatrix GGUF of "
                   "llama-imatrix) instead of text")
      ->type_name("FILE");
  const std::map<std::string, Method> methods = {
      {"spectral", Method::kSpectral}, {"imatrix", Method::kImatrix}, {"plain", Method::kPlain}};
  verb->add_option("--method", options.method,
                   "spectral: the solver; plain, imatrix: llama.cpp's own rounding, for comparison "
                   "(default spectral)")
      ->transform(CLI::CheckedTransformer(methods, CLI::ignore_case).description(""))
      ->type_name("spectral|imatrix|plain");
  const std::map<std::string, Moments> moments = {{"sequential", Moments::kSequential},
                                                  {"static", Moments::kStatic}};
  verb->add_option("--moments", options.moments,
                   "sequential: gathered with the quantized part in front; static: of the original "
                   "(default sequential)")
      ->transform(CLI::CheckedTransformer(moments, CLI::ignore_case).description(""))
      ->type_name("sequential|static");
  verb->add_option(
          "--effort", arguments->effort,
          "fast: errors are weighed by what goes into a matrix; standard: also by what the output "
          "distribution feels of it, half as much time again; "
          "best: then tuned against the original, minutes to hours more (default standard)")
      // FAST becomes fast
      ->transform(CLI::IsMember({"fast", "standard", "best"}, CLI::ignore_case).description(""))
      ->type_name("fast|standard|best");
  add_tuning(*verb, options);
  std::vector<std::string> steps;
  for (const auto& [name, apply] : kSteps) steps.push_back(name);
  verb->add_option("--without", arguments->without,
                   "leave steps of the solver out, to see what each is worth")
      ->check(CLI::IsMember(steps).description(""))
      ->type_name(fmt::format("{}", fmt::join(steps, "|")));
  std::vector<std::string> types;
  for (const format::Grid* grid : format::all_grids()) {
    types.push_back(format::name_of(*grid));
    for (char& c : types.back()) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  verb->add_option("--type", arguments->type, "type of every matrix (default q4_k)")
      ->check(CLI::IsMember(types, CLI::ignore_case).description(""))
      ->type_name(fmt::format("{}", fmt::join(types, "|")));
  verb->add_option("--fallback", arguments->fallback,
                   "type for matrices whose columns are no multiple of 256: q8_0, f16, bf16, f32 "
                   "(then not strict)")
      ->type_name("TYPE");
  verb->add_flag("--force", options.overwrite, "replace an existing output file");
  verb->add_flag("--dry-run", arguments->dry_run,
                 "print the plan: types, size, memory, time; write nothing");
  add_common(*verb, arguments->common, true);
  verb->footer(
      "The result is a function of input, options, seed and thread count; all of them are written "
      "into its metadata.\n"
      "Examples:\n"
      "  spectralquant quantize model-bf16.gguf -o model-q4km.gguf\n"
      "  spectralquant quantize model-bf16.gguf -o model-q4km.gguf --calibration 'texts/*.jsonl' "
      "self:65536\n"
      "  spectralquant quantize model-bf16.gguf -o pure.gguf --method plain");
  verb->callback([arguments] { run(*arguments); });
}

}  // namespace spectralquant::cli
