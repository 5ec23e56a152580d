#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

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

/// --json, --quiet, and on request --threads, --seed, --device.
void add_common(CLI::App& verb, CommonOptions& options, bool runs_model);

/// Sets threads; warns when matrix products are slow.
void prepare_engine(const CommonOptions& options, Console& console);

}  // namespace spectralquant::cli
