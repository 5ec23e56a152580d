#include "spectralquant/cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <variant>

#include "spectralquant/pipeline/option_table.h"

namespace spectralquant::cli {

using pipeline::Option;
using pipeline::OptionValue;

void add_options(CLI::App& verb, const std::vector<std::string>& flags) {
  static const pipeline::QuantizeOptions defaults;
  for (const std::string& flag : flags) {
    const Option& option = pipeline::find_option(flag);
    const std::string name = "--" + flag;
    if (verb.get_option_no_throw(name)) continue;
    const OptionValue usual = option.get(defaults);
    if (std::holds_alternative<bool>(usual)) {
      verb.add_flag(name)->description(option.help);
      continue;
    }
    // read_options() takes the words
    CLI::Option* const added = verb.add_option(
        name, CLI::callback_t([](const CLI::results_t&) { return true; }), option.help);
    added->type_name(option.type_name);
    if (std::holds_alternative<std::vector<std::string>>(usual))
      added->expected(CLI::detail::expected_max_vector_size);
    else
      added->default_str(fmt::format("{}", fmt::join(pipeline::option_words(usual), " ")));
  }
}

std::vector<std::string> all_flags() {
  std::vector<std::string> flags;
  for (const Option& option : pipeline::option_table())
    if (!option.flag.empty()) flags.push_back(option.flag);
  return flags;
}

void read_options(const CLI::App& verb, pipeline::QuantizeOptions& options) {
  for (const Option& option : pipeline::option_table()) {
    if (option.flag.empty()) continue;
    const CLI::Option* const given = verb.get_option_no_throw("--" + option.flag);
    if (given && given->count() > 0)
      option.set(options, pipeline::parse_option(option, given->results()));
  }
}

}  // namespace spectralquant::cli
