#pragma once
#include <CLI/CLI.hpp>

namespace spectralquant::cli {

class Console;

/// What every verb understands.
struct CommonOptions {
  bool json = false;
  bool quiet = false;
  int n_threads = 0;
  std::uint64_t seed = 0;
  std::string device = "cpu";
};

// Each verb adds its subcommand; the job runs when the command line was parsed and names it.
// Results go to stdout, words to stderr.
void add_quantize(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_eval(CLI::App& app);
void add_inspect(CLI::App& app);
void add_report(CLI::App& app);
void add_card(CLI::App& app);
void add_tokenize(CLI::App& app);

/// --json, --quiet, and on request --threads, --seed, --device.
void add_common(CLI::App& verb, CommonOptions& options, bool runs_model);

/// Sets threads; warns when matrix products are slow.
void prepare_engine(const CommonOptions& options, Console& console);

/// Calibration text as the command line gives it: files, globs, and "self:N".
struct CalibrationArguments {
  std::vector<std::string> sources;
  std::int64_t window_tokens = 512;
  std::int64_t max_tokens = 0;
  double self_temperature = 1.2;
};
void add_calibration(CLI::App& verb, CalibrationArguments& arguments);

}  // namespace spectralquant::cli
