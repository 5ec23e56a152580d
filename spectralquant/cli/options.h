#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::cli {

/// Adds options of pipeline::option_table() to a verb: those named, but none that it has already.
void add_options(CLI::App& verb, const std::vector<std::string>& flags);

/// Every option that the command line of quantize has.
std::vector<std::string> all_flags();

/// What the command line says of options of the table, set in the table's order.
/// Errors   Error(kBadUsage) for values that an option does not take.
void read_options(const CLI::App& verb, pipeline::QuantizeOptions& options);

}  // namespace spectralquant::cli
