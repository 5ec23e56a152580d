#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// Value of an option. Which alternative it holds is the option's kind.
using OptionValue =
    std::variant<bool, std::int64_t, std::uint64_t, double, std::string, std::vector<std::string>>;

/// Where the metadata of a result say what an option was.
enum class Recorded {
  kInOptions,  ///< in the JSON of key spectralquant.options
  kApart,      ///< in a key of its own
  kAsOthers,   ///< nowhere: it is short for other options
};

/// Numbers that an option takes.
struct OptionRange {
  double low, high;
  bool above_low = false;   ///< low itself is too low
  bool below_high = false;  ///< high itself is too high
};

/// An option that decides the result of quantize.
struct Option {
  std::string flag;  ///< on the command line, without "--"; "": only programs set it
  std::string key;   ///< in the metadata
  std::string help;
  std::string type_name;  ///< what help shows in place of a value; "": the option takes none
  Recorded recorded = Recorded::kInOptions;
  bool is_path = false;  ///< the metadata hold the file name alone
  /// Says whether the result depends on this option, given the others.
  bool (*matters)(const QuantizeOptions&) = nullptr;
  std::function<OptionValue(const QuantizeOptions&)> get;
  /// Errors   Error(kBadUsage) for a word that is none of `choices`.
  std::function<void(QuantizeOptions&, const OptionValue&)> set;
  std::vector<std::string> choices;  ///< the only values of a string or list; empty: any
  std::optional<OptionRange> range;  ///< of numbers
};

/// All options that decide the result of quantize, each once.
///
/// The command line, the check of values, the provenance and the printed command are made from this
/// table. Values are set in its order: an option that is short for others comes before them.
const std::vector<Option>& option_table();

/// The option of that flag, which must be in the table.
const Option& find_option(std::string_view flag);

/// The words of a command line as a value of the option's kind.
/// Errors   Error(kBadUsage) if they are no number where one is needed.
OptionValue parse_option(const Option& option, const std::vector<std::string>& words);

/// The words of a value, the inverse of parse_option().
std::vector<std::string> option_words(const OptionValue& value);

/// Errors   Error(kBadUsage) if a number is out of its option's range.
void check_ranges(const QuantizeOptions& options);

}  // namespace spectralquant::pipeline
