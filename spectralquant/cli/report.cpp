// spectralquant report: what people look at, made from the JSON of eval.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "spectralquant/cli/console.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/publish/html.h"

namespace spectralquant::cli {
namespace {

struct Arguments {
  CommonOptions common;
  std::string results, spectra, output;
  bool overwrite = false;
};

void run(const Arguments& arguments) {
  const auto results = publish::read_source(arguments.results);
  std::vector<std::string> inputs = {arguments.results};
  std::optional<publish::Source> spectra;
  if (!arguments.spectra.empty()) {
    spectra = publish::read_source(arguments.spectra);
    inputs.push_back(arguments.spectra);
  }
  const auto page = publish::to_html(results, spectra ? &*spectra : nullptr);
  gguf::PartialFile file(arguments.output, arguments.overwrite, inputs);
  file.write(0, page.data(), page.size());
  file.sync();
  file.rename_to_target();
  Console(arguments.common.quiet).say(fmt::format("wrote      {}  {}", arguments.output, human_bytes(page.size())));
  if (arguments.common.json) fmt::print("{}\n", nlohmann::json{{"output", arguments.output}, {"bytes", page.size()}}.dump(2));
}

}  // namespace

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* verb =
      app.add_subcommand("report", "Make one HTML file of eval's JSON: table, pictures, the text coloured by KL divergence; opens offline");
  verb->add_option("results", arguments->results, "what eval --json printed")->required();
  verb->add_option("--spectra", arguments->spectra, "what inspect --signals --json printed: spectra, error by matrix");
  verb->add_option("-o,--output", arguments->output, "file to write")->required();
  verb->add_flag("--force", arguments->overwrite, "replace an existing output file");
  add_common(*verb, arguments->common, false);
  verb->footer(
      "Example:\n"
      "  spectralquant eval --reference model-bf16.gguf ours.gguf pure.gguf --suite held=suites/heldout120.jsonl --json > results.json\n"
      "  spectralquant report results.json -o report.html");
  verb->callback([arguments] { run(*arguments); });
}

}  // namespace spectralquant::cli
