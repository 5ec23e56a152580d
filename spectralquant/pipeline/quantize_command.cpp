#include "spectralquant/pipeline/quantize_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/pipeline/option_table.h"

namespace spectralquant::pipeline {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& key, const std::string& place) {
  throw bad_input("made with an option that this version does not know: " + key, place,
                  "use the version that made the file (key spectralquant.version)");
}

/// Sets the option to the value that the metadata hold for it.
void set_from(const Option& option, const json& value, QuantizeOptions& options,
              const std::string& place) {
  try {
    std::visit(
        [&](const auto& held) {
          const OptionValue read = value.get<std::decay_t<decltype(held)>>();
          for (const std::string& word : option_words(read)) {
            if (!option.choices.empty() &&
                std::count(option.choices.begin(), option.choices.end(), word) == 0)
              refuse(option.key, place);
          }
          option.set(options, read);
        },
        option.get(options));
  } catch (const json::exception&) {
    refuse(option.key, place);
  }
}

/// The options that a file was made with.
QuantizeOptions options_of(const gguf::Metadata& metadata) {
  const json values = json::parse(metadata.string_or("spectralquant.options", ""), nullptr,
                                  /*allow_exceptions=*/false);
  if (!values.is_object())
    throw bad_input(
        "this file does not say how it was made: it has no options of spectralquant quantize",
        metadata.place, "give a file that spectralquant quantize wrote");
  QuantizeOptions options;
  const auto& table = option_table();
  for (const auto& [key, value] : values.items()) {
    const auto found = std::find_if(table.begin(), table.end(), [&](const Option& option) {
      return option.recorded == Recorded::kInOptions && option.key == key;
    });
    if (found == table.end()) refuse(key, metadata.place);
    set_from(*found, value, options, metadata.place);
  }
  options.seed = static_cast<std::uint64_t>(metadata.int_or("spectralquant.seed", 0));
  options.n_threads = static_cast<int>(metadata.int_or("spectralquant.threads", 0));
  return options;
}

}  // namespace

std::string quantize_command(const gguf::Metadata& metadata, const std::string& input,
                             const std::string& output) {
  const QuantizeOptions made = options_of(metadata);
  QuantizeOptions told;  // what the command says so far
  std::string command =
      fmt::format("spectralquant quantize {} -o {}", shell_path(input), shell_path(output));
  for (const Option& option : option_table()) {
    const OptionValue value = option.get(made);
    if (option.flag.empty() || !option.matters(made) || value == option.get(told)) continue;
    command += fmt::format(" --{}", option.flag);
    for (const std::string& word : option_words(value))
      command += fmt::format(" {}", option.is_path ? shell_path(word) : shell_word(word));
    option.set(told, value);
  }
  std::string unsaid;
  for (const Option& option : option_table()) {
    const OptionValue value = option.get(made);
    if (!option.matters(made) || value == option.get(told)) continue;
    unsaid += fmt::format("{}{}", unsaid.empty() ? "" : ", ", option.key);
    for (const std::string& word : option_words(value))
      unsaid += fmt::format(" {}", printable(word));
  }
  if (!unsaid.empty()) command += "  # no option says: " + unsaid;
  return command;
}

}  // namespace spectralquant::pipeline
