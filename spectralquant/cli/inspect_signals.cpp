// spectralquant inspect --signals: spectra of the moments, where quantization errors lie in them,
// what they cost.
#include "spectralquant/cli/inspect_signals.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "spectralquant/cli/console.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/spectra/measure.h"
#include "spectralquant/spectra/report.h"

namespace spectralquant::cli {
namespace {

void check(const InspectSignals& arguments) {
  const auto refuse = [](const char* problem, const char* fix) {
    throw Error(ErrorCode::kBadUsage, problem, "inspect --signals", fix);
  };
  if (!arguments.reference.empty()) return;
  if (!arguments.candidates.empty())
    refuse("the errors of files cannot be weighed without the original",
           "add --reference MODEL.gguf");
  if (!arguments.measure_on.empty())
    refuse("nothing to measure without an original", "add --reference MODEL.gguf");
}

}  // namespace

void add_inspect_signals(CLI::App& verb, InspectSignals& arguments) {
  const char* group = "Signals";
  auto* signals = verb.add_option("--signals", arguments.signals,
                                  "signals file of calibrate: show the spectra of every matrix")
                      ->group(group);
  verb.add_option("--reference", arguments.reference,
                  "the original: show where the error of plain rounding and of each FILE lies in "
                  "the spectra, and its predicted cost in KL")
      ->needs(signals)
      ->group(group);
  verb.add_option(
          "--measure", arguments.measure_on,
          "text to measure the cost on too, one matrix quantized at a time: files, globs, self:N")
      ->needs(signals)
      ->type_name("FILE|self:N")
      ->group(group);
  verb.add_option("--max-tokens", arguments.measure.max_tokens,
                  "measure on at most this many tokens of the files; 0: all")
      ->capture_default_str()
      ->needs(signals)
      ->group(group);
  verb.add_flag("--eigenvalues", arguments.eigenvalues,
                "with --json: every eigenvalue, not only a curve")
      ->needs(signals)
      ->group(group);
  verb.add_option("--top", arguments.n_rows, "matrices shown, most expensive first; 0: all")
      ->capture_default_str()
      ->needs(signals)
      ->group(group);
  for (const char* other : {"--strict", "--tensors", "--metadata"})
    verb.get_option(other)->excludes(signals);
}

void inspect_signals(const InspectSignals& arguments, const CommonOptions& common) {
  check(arguments);
  Console console(common.quiet);
  prepare_engine(common, console);
  const auto signals = calibrate::load_signals(arguments.signals);
  std::optional<gguf::File> reference;
  if (!arguments.reference.empty()) reference = gguf::File::open(arguments.reference);
  std::vector<gguf::File> files;
  for (const auto& path : arguments.candidates) files.push_back(gguf::File::open(path));
  std::vector<spectra::Variant> variants;
  if (reference) variants.push_back({"plain rounding", nullptr});
  for (const auto& file : files)
    variants.push_back({std::filesystem::path(file.path()).stem().string(), &file});

  spectra::Report report =
      spectra::analyze(signals, reference ? &*reference : nullptr, variants, console.progress());
  if (!arguments.measure_on.empty()) {
    model::Model model(*reference, {.device = model::parse_device(common.device)});
    pipeline::CalibrationSource source = arguments.measure;
    for (const auto& word : arguments.measure_on) pipeline::add_source(source, word);
    const auto text = pipeline::load_calibration(model, source, common.seed, console.progress());
    spectra::measure(report, model, variants, text.windows, text.description, console.progress());
  }
  if (common.json)
    print_document(spectra::to_json(report, arguments.eigenvalues));
  else
    print_document(spectra::to_terminal(report, arguments.n_rows, stdout_has_color()));
}

}  // namespace spectralquant::cli
