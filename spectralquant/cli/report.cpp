// spectralquant report and spectralquant card: what people read, made from the JSON of eval.
#include <fmt/format.h>

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

struct Arguments {
  CommonOptions common;
  std::string results, spectra, model, output;
  publish::CardOptions card;
  bool markdown = false, overwrite = false;
};

/// To the file if one is named, else to stdout.
void deliver(const Arguments& arguments, const std::string& text,
             const std::vector<std::string>& inputs) {
  if (arguments.output.empty()) {
    print_document(text);
    return;
  }
  gguf::PartialFile(arguments.output, arguments.overwrite, inputs).finish({text});
  Console(arguments.common.quiet)
      .say(fmt::format("wrote      {}  {}", arguments.output, human_bytes(text.size())));
  if (arguments.common.json)
    print_document(
        json_text(nlohmann::json{{"output", arguments.output}, {"bytes", text.size()}}, 2) + "\n");
}

void run_report(const Arguments& arguments) {
  const auto results = publish::read_source(arguments.results);
  if (arguments.markdown) {
    if (!arguments.spectra.empty())
      throw Error(ErrorCode::kBadUsage, "--markdown prints tables alone", "--spectra",
                  "leave one of the two out");
    return deliver(arguments, publish::to_markdown(results), {arguments.results});
  }
  if (arguments.output.empty())
    throw Error(ErrorCode::kBadUsage, "no output file given", "",
                "add -o report.html (or --markdown to print the tables)");
  if (arguments.spectra.empty())
    return deliver(arguments, publish::to_html(results, nullptr), {arguments.results});
  const auto spectra = publish::read_source(arguments.spectra);
  deliver(arguments, publish::to_html(results, &spectra), {arguments.results, arguments.spectra});
}

void run_card(const Arguments& arguments) {
  const auto file = gguf::File::open(arguments.model);
  deliver(arguments,
          publish::to_card(file, publish::read_source(arguments.results), arguments.card),
          {arguments.results, arguments.model});
}

}  // namespace

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* verb = app.add_subcommand("report",
                                  "Make one HTML file of eval's JSON: table, pictures, the text "
                                  "coloured by KL divergence; opens offline");
  verb->add_option(
          "results", arguments->results,
          "what eval --json printed; with --details also distributions and texts to browse")
      ->required();
  verb->add_option("--spectra", arguments->spectra,
                   "what inspect --signals --json printed: spectra, error by matrix");
  verb->add_option("-o,--output", arguments->output, "file to write");
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
  auto arguments = std::make_shared<Arguments>();
  auto* verb = app.add_subcommand(
      "card",
      "Write the README.md of a quantized file for a model hub, from its metadata and eval's JSON");
  verb->add_option("model", arguments->model, "GGUF that quantize wrote")->required();
  verb->add_option("--results", arguments->results,
                   "what eval --json printed; this file must be among the candidates")
      ->required();
  verb->add_option("-o,--output", arguments->output, "file to write; stdout without it");
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
