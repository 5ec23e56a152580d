// The command line: the only place that prints or exits.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 input refused, 130 interrupted.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>
#include <sstream>
#include <string>
#include <vector>

#include "spectralquant/cli/console.h"
#include "spectralquant/cli/verbs.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/core/version.h"

namespace {

constexpr int kDone = 0, kFailed = 1, kWrongUsage = 2, kRefused = 3, kInterrupted = 130;

constexpr const char* kAbout =
    "SpectralQuant turns a BF16, F16 or F32 language-model GGUF into a strict, pure Q4_K_M GGUF\n"
    "that stock llama.cpp runs and that behaves like the original.";

constexpr const char* kExamples =
    "Examples:\n"
    "  spectralquant quantize model-bf16.gguf -o model-q4km.gguf\n"
    "  spectralquant quantize model-bf16.gguf -o model-q4km.gguf --calibration my-prompts.jsonl "
    "self:65536\n"
    "  spectralquant eval --reference model-bf16.gguf model-q4km.gguf --suite "
    "held=suites/heldout120.jsonl\n"
    "  spectralquant report results.json -o report.html\n"
    "  spectralquant inspect model-q4km.gguf --strict\n"
    "\n"
    "`spectralquant VERB --help` explains a verb. Results go to stdout, everything else to "
    "stderr.\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 input refused.";

int exit_code(const spectralquant::Error& error) {
  switch (error.code()) {
    case spectralquant::ErrorCode::kBadUsage:
      return kWrongUsage;
    case spectralquant::ErrorCode::kBadInput:
      return kRefused;
    case spectralquant::ErrorCode::kFailed:
      break;
  }
  return kFailed;
}

/// What the parser of the command line refused.
spectralquant::Error usage_error(const CLI::App& app, const CLI::ParseError& error) {
  std::string problem = error.what(), help = "spectralquant --help";
  for (const CLI::App* verb : app.get_subcommands())
    help = "spectralquant " + verb->get_name() + " --help";
  if (app.get_subcommands().empty()) {
    const std::vector<std::string> words = app.remaining();
    if (words.empty())
      problem = "no verb given";
    else
      problem =
          fmt::format("there is no {} {}", words[0].starts_with("-") ? "option" : "verb", words[0]);
  }
  return spectralquant::Error(spectralquant::ErrorCode::kBadUsage, problem, "", "see " + help);
}

/// Runs the verb that is named. Errors  those of the verb, and Error(kBadUsage) of the parser.
int run(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return kDone;
  } catch (const CLI::RuntimeError& error) {  // a verb that prints its verdict and sets the code
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw usage_error(app, error);
    std::ostringstream out;  // --help, --version
    app.exit(error, out, out);
    spectralquant::cli::print_document(out.str());
    return kDone;
  }
}

/// A result that did not reach its file is no result.
void flush_results() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw spectralquant::Error(spectralquant::ErrorCode::kFailed, "the result cannot be written",
                             "standard output", "check the disk it goes to");
}

}  // namespace

int main(int argc, char** argv) {
  using namespace spectralquant;
  CLI::App app(kAbout, "spectralquant");
  app.footer(kExamples);
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("spectralquant ") + kVersion);
  cli::add_quantize(app);
  cli::add_calibrate(app);
  cli::add_eval(app);
  cli::add_inspect(app);
  cli::add_report(app);
  cli::add_card(app);
  cli::add_tokenize(app);
  cli::install_signal_handlers();

  cli::Console console;
  try {
    const int code = run(app, argc, argv);
    flush_results();
    return code;
  } catch (const cli::Interrupted&) {
    console.say(
        "spectralquant: interrupted; no output was written (quantize keeps what is done: the same "
        "command continues)");
    return kInterrupted;
  } catch (const Error& error) {
    console.print_error(error);
    return exit_code(error);
  } catch (const std::bad_alloc&) {
    console.print_error(Error(
        ErrorCode::kFailed, "out of memory", "",
        "use a machine with more memory; quantize and calibrate need less with fewer tokens"));
  } catch (const std::exception& error) {
    console.print_error(Error(ErrorCode::kFailed, without_backtrace(error.what())));
  }
  return kFailed;
}
