// spectralquant eval: reference and candidates over suites, one table.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/evaluate/report.h"
#include "spectralquant/evaluate/report_json.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/text/corpus.h"

namespace spectralquant::cli {
namespace {

struct EvalArguments {
  CommonOptions common;
  evaluate::EvaluationRequest request;
  std::string markdown_file;
  std::vector<std::string> suites;
  bool markdown = false, csv = false, no_cache = false;
};

/// The file for the table, made before the long work; nothing if none is asked for. It replaces an
/// older table, never a file that is read.
std::optional<gguf::PartialFile> open_markdown(const EvalArguments& arguments) {
  if (arguments.markdown_file.empty()) return std::nullopt;
  std::vector<std::string> inputs = arguments.request.candidates;
  for (const auto& path : {arguments.request.reference, arguments.request.reference_logits})
    if (!path.empty()) inputs.push_back(path);
  std::vector<std::string> patterns = arguments.request.calibration_texts;
  for (const auto& spec : arguments.request.suites) patterns.push_back(spec.pattern);
  for (const auto& spec : arguments.request.choices)
    patterns.push_back(evaluate::parse_choices(spec).pattern);
  for (auto& path : text::expand_patterns(patterns)) inputs.push_back(std::move(path));
  return std::make_optional<gguf::PartialFile>(arguments.markdown_file, true, inputs);
}

void run(EvalArguments& arguments) {
  const auto usage = [](const char* problem, const char* place, const char* fix) {
    throw Error(ErrorCode::kBadUsage, problem, place, fix);
  };
  auto& request = arguments.request;
  if (arguments.common.json + arguments.markdown + arguments.csv > 1)
    usage("only one form can be printed", "--json, --markdown, --csv", "choose one of them");
  if (request.details && !arguments.common.json)
    usage("details are printed as JSON only", "--details", "add --json");
  if (arguments.suites.empty() && request.choices.empty() && request.reference_logits.empty())
    usage("nothing to score on", "", "give --suite NAME=FILE or --choices NAME=FILE");
  Console console(arguments.common.quiet);
  prepare_engine(arguments.common, console);
  for (const auto& text : arguments.suites) request.suites.push_back(evaluate::parse_suite(text));
  request.model.device = model::parse_device(arguments.common.device);
  request.options.seed = arguments.common.seed;
  if (request.cache_folder.empty()) request.cache_folder = evaluate::default_cache_folder();
  if (arguments.no_cache) request.cache_folder.clear();
  // Everything that can be refused is refused before the first long computation.
  auto markdown_file = open_markdown(arguments);

  const auto evaluation = evaluate::evaluate(request, console.progress());
  if (!evaluation.cache_problem.empty())
    console.say("warning    results are not kept for the next run: " + evaluation.cache_problem);
  if (markdown_file) markdown_file->finish({evaluate::to_markdown(evaluation)});
  if (arguments.common.json)
    print_document(evaluate::to_json(evaluation));
  else if (arguments.csv)
    print_document(evaluate::to_csv(evaluation));
  else if (arguments.markdown)
    print_document(evaluate::to_markdown(evaluation));
  else
    print_document(evaluate::to_terminal(evaluation, stdout_width(), stdout_has_color()));
}

void add_inputs(CLI::App& verb, EvalArguments& arguments) {
  auto& request = arguments.request;
  verb.add_option("candidates", request.candidates,
                  "GGUF files to score, of any type that llama.cpp reads")
      ->type_name("FILE");
  verb.add_option("--reference", request.reference, "the original: BF16, F16 or F32 GGUF")
      ->type_name("FILE");
  verb.add_option("--reference-logits", request.reference_logits,
                  "in place of the original and of suites: what llama-perplexity "
                  "--kl-divergence-base stored of it")
      ->type_name("FILE");
  verb.add_option("--suite", arguments.suites,
                  "text to score on: NAME=FILE (every document by itself), NAME=FILE:64x256 "
                  "(first 64 windows of 256 tokens), NAME=FILE:c512 (as llama-perplexity -c 512), "
                  "NAME=FILE:chat512 (windows as question and answer; the answer counts). "
                  "+special at the end: names of special tokens in plain text are those tokens")
      ->type_name("NAME=FILE[:PROTOCOL]");
  verb.add_option("--choices", request.choices,
                  "multiple-choice questions: JSONL with question, choices and answer; :+special "
                  "as above")
      ->type_name("NAME=FILE[:+special]");
}

void add_comparisons(CLI::App& verb, EvalArguments& arguments) {
  auto& request = arguments.request;
  verb.add_option("--baseline", request.baseline,
                  "candidate that gap recovery is measured against: (baseline − model) / "
                  "(baseline − reference)")
      ->type_name("FILE");
  verb.add_option("--calibration-text", request.calibration_texts,
                  "text that candidates were calibrated on: eval measures its overlap with the "
                  "suites, and whether a candidate drifted towards it")
      ->type_name("FILE");
  verb.add_option("--control", request.control,
                  "candidate that is the same quantization calibrated on the model's own samples")
      ->type_name("FILE");
  verb.add_option("--continue", request.continue_tokens,
                  "let reference and candidates continue the beginnings of the suites by N tokens, "
                  "and say where they part")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20).description(""));
  verb.add_option("--bootstrap", request.options.bootstrap_samples,
                  "resamples for the 95 % intervals")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000).description(""));
}

void add_forms(CLI::App& verb, EvalArguments& arguments) {
  auto* cache = verb.add_option("--cache", arguments.request.cache_folder,
                                "folder where results are kept (default: spectralquant in "
                                "$XDG_CACHE_HOME or ~/.cache)")
                    ->type_name("DIR");
  verb.add_flag("--no-cache", arguments.no_cache, "compute everything anew and keep nothing")
      ->excludes(cache);
  verb.add_flag("--markdown", arguments.markdown, "print Markdown");
  verb.add_flag("--csv", arguments.csv, "print one line per model and suite");
  verb.add_option("--markdown-file", arguments.markdown_file,
                  "also write the table as Markdown to this file")
      ->type_name("FILE");
  verb.add_flag("--details", arguments.request.details,
                "with --json: distributions, worst tokens and documents token by token");
}

}  // namespace

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<EvalArguments>();
  auto* verb = app.add_subcommand("eval",
                                  "Score GGUF files against their original: prompt loss, KL "
                                  "divergence, agreement, in one table");
  add_inputs(*verb, *arguments);
  add_comparisons(*verb, *arguments);
  add_forms(*verb, *arguments);
  add_common(*verb, arguments->common, true);
  verb->footer(
      "What is scored is the written file: its bytes are decoded as llama.cpp decodes them.\n"
      "Example:\n"
      "  spectralquant eval --reference model-bf16.gguf ours.gguf pure.gguf --baseline pure \\\n"
      "      --suite held=suites/heldout120.jsonl --suite wiki=wiki.test.raw:c512\n"
      "  spectralquant eval --reference-logits stored.kld ours.gguf pure.gguf");
  verb->callback([arguments] { run(*arguments); });
}

}  // namespace spectralquant::cli
