#pragma once
#include <CLI/CLI.hpp>

namespace spectralquant::cli {

// Each verb adds its subcommand; the job runs when the command line was parsed and names it.
// Results go to stdout, words to stderr.
void add_quantize(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_eval(CLI::App& app);
void add_inspect(CLI::App& app);
void add_report(CLI::App& app);
void add_card(CLI::App& app);
void add_tokenize(CLI::App& app);

}  // namespace spectralquant::cli
