// spectralquant report and spectralquant card: what people read, made from the JSON of eval.
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "spectralquant/cli/common.h"
#include "spectralquant/cli/console.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/publish/card.h"
#include "spectralquant/publish/html.h"
#include "spectralquant/publish/markdown.h"

namespace spectralquant::cli {
namespace {

struct ReportArguments {
  CommonOptions common;
  std::string results, spectra, model, output;
  publish::CardOptions card;
  bool markdown = false, overwrite = false;
};

/// What make() returns goes to the file if one is named, else to stdout. A place that cannot be
/// written is found first.
void deliver(const ReportArguments& arguments, const std::vector<std::string>& inputs,
             const std::function<std::string()>& make) {
  if (arguments.output.empty()) {
    print_document(make());
    return;
  }
  gguf::PartialFile file(arguments.output, arguments.overwrite, inputs);
  const std::string text = make();
  file.finish({text});
  Console(arguments.common.quiet)
      .say(fmt::format("wrote      {}  {}", arguments.output, human_bytes(text.size())));
  if (arguments.common.json)
    print_document(
        json_text(nlohmann::json{{"output", arguments.output}, {"bytes", text.size()}}, 2) + "\n");
}

void run_report(const ReportArguments& arguments) {
  const bool with_spectra = !arguments.spectra.empty();
  if (arguments.markdown && with_spectra)
    throw Error(ErrorCode::kBadUsage, "--markdown prints tables alone", "--spectra",
                "leave one of the two out");
  if (!arguments.markdown && arguments.output.empty())
    throw Error(ErrorCode::kBadUsage, "no output file given", "",
                "add -o report.html (or --markdown to print the tables)");
  std::vector<std::string> inputs = {arguments.results};
  if (with_spectra) inputs.push_back(arguments.spectra);
  deliver(arguments, inputs, [&] {
    const auto results = publish::read_source(arguments.results);
    if (arguments.markdown) return publish::to_markdown(results);
    if (!with_spectra) return publish::to_html(results, nullptr);
    const auto spectra = publish::read_source(arguments.spectra);
    return publish::to_html(results, &spectra);
  });
}

void run_card(const ReportArguments& arguments) {
  const auto file = gguf::File::open(arguments.model);
  std::vector<std::string> inputs = file.paths();
  inputs.push_back(arguments.results);
  deliver(arguments, inputs, [&] {
    return publish::to_card(file, publish::read_source(arguments.results), arguments.card);
  });
}

}  // namespace

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<ReportArguments>();
  auto* verb = app.add_subcommand("report",
                                  "Make one HTML file of eval's JSON: table, pictures, the text "
                                  "coloured by KL divergence; opens offline");
  verb->add_option(
          "results", arguments->results,
          "what eval --json printed; with --details also distributions and texts to browse")
      ->required()
      ->type_name("FILE");
  verb->add_option("--spectra", arguments->spectra,
                   "what inspect --signals --json printed: spectra, error by matrix")
      ->type_name("FILE");
  verb->add_option("-o,--output", arguments->output, "file to write")->type_name("FILE");
  verb->add_flag("--markdown", arguments->markdown,
                 "the tables as Markdown instead, to stdout unless -o names a file");
  verb->add_flag("--force", arguments->overwrite, "replace an existing output file");
  add_common(*verb, arguments->common, false);
  verb->footer(
      "Example:\n"
      "  spectralquant eval --reference model-bf16.gguf ours.gguf pure.gguf --suite "
      "held=suites/heldout120.jsonl --details --json > results.json\n"
      "  spectralquant report results.json -o report.html");
  verb->callback([arguments] { run_report(*arguments); });
}

void add_card(CLI::App& app) {
  auto arguments = std::make_shared<ReportArguments>();
  auto* verb = app.add_subcommand(
      "card",
      "Write the README.md of a quantized file for a model hub, from its metadata and eval's JSON");
  verb->add_option("model", arguments->model, "GGUF that quantize wrote")
      ->required()
      ->type_name("FILE");
  verb->add_option("--results", arguments->results,
                   "what eval --json printed; this file must be among the candidates")
      ->required()
      ->type_name("FILE");
  verb->add_option("-o,--output", arguments->output, "file to write; stdout without it")
      ->type_name("FILE");
  verb->add_option("--base-model", arguments->card.base_model,
                   "the original on the hub, OWNER/NAME, where the metadata do not name it");
  verb->add_option("--quantized-by", arguments->card.quantized_by, "who publishes the file");
  verb->add_flag("--force", arguments->overwrite, "replace an existing output file");
  add_common(*verb, arguments->common, false);
  verb->footer(
      "Example:\n  spectralquant card model-q4km.gguf --results results.json -o README.md");
  verb->callback([arguments] { run_card(*arguments); });
}

}  // namespace spectralquant::cli
