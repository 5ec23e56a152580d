// Options are listed once: command line, provenance and printed command agree on each of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "pipeline/pipeline_fixture.h"
#include "spectralquant/pipeline/option_table.h"
#include "spectralquant/pipeline/provenance.h"
#include "spectralquant/pipeline/quantize_command.h"

namespace spectralquant::pipeline {
namespace {

using testing::HasSubstr;
using Words = std::vector<std::string>;

/// Another value that the option takes.
OptionValue changed(const Option& option, const QuantizeOptions& options) {
  return std::visit(
      [&](const auto& held) -> OptionValue {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, bool>) {
          return !held;
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (option.choices.empty()) return option.is_path ? "other.gguf" : "cpu:0";
          return option.choices.back() == held ? option.choices.front() : option.choices.back();
        } else if constexpr (std::is_same_v<T, Words>) {
          return option.choices.empty() ? Words{"other.txt", "self:640"} : option.choices;
        } else if constexpr (std::is_same_v<T, double>) {
          const bool bounded = option.range && std::isfinite(option.range->high);
          return bounded ? (option.range->low + option.range->high) / 4 : held + 0.25;
        } else {
          return static_cast<T>(held + 3);
        }
      },
      option.get(options));
}

gguf::Metadata metadata_of(const QuantizeOptions& options) {
  gguf::Metadata metadata;
  metadata.set("spectralquant.options", gguf::Value::of_string(options_json(options)));
  metadata.set("spectralquant.seed", gguf::Value::of_u64(options.seed));
  metadata.set("spectralquant.threads",
               gguf::Value::of_u32(static_cast<std::uint32_t>(options.n_threads)));
  return metadata;
}

/// What a command line says, read as the command line reads it. No word of it is quoted.
QuantizeOptions parsed(const std::string& command) {
  std::map<std::string, Words> given;
  std::istringstream in(command);
  std::string flag;
  for (std::string word; in >> word;) {
    if (word.starts_with("--"))
      given[flag = word.substr(2)];
    else
      given[flag].push_back(word);
  }
  QuantizeOptions options;
  for (const Option& option : option_table()) {
    if (const auto found = given.find(option.flag); !option.flag.empty() && found != given.end())
      option.set(options, parse_option(option, found->second));
  }
  return options;
}

/// A job in which most options matter.
QuantizeOptions tuned() {
  QuantizeOptions options;
  options.input = SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf";  // the best effort reads its size
  options.calibration.files = {"text.txt"};
  options.tune.tokens = 4096;
  return options;
}

TEST(OptionTable, EveryOptionSurvivesThePrintedCommand) {
  for (const Option& option : option_table()) {
    if (option.flag.empty()) continue;
    SCOPED_TRACE(option.flag);
    QuantizeOptions made = tuned();
    const OptionValue value = changed(option, made);
    ASSERT_NE(value, option.get(made));
    option.set(made, value);
    const std::string command = quantize_command(metadata_of(made), "in.gguf", "out.gguf");
    EXPECT_THAT(command, testing::Not(HasSubstr("#")));
    const QuantizeOptions again = parsed(command);
    EXPECT_EQ(options_json(again), options_json(made)) << command;
    EXPECT_EQ(again.seed, made.seed);
    EXPECT_EQ(again.n_threads, made.n_threads);
    if (option.recorded != Recorded::kAsOthers) {
      EXPECT_EQ(option.get(again), value) << command;
      EXPECT_THAT(command, HasSubstr(" --" + option.flag));
    }
  }
}

TEST(OptionTable, WhatNoOptionSaysIsNotHushedUp) {
  for (const Option& option : option_table()) {
    if (!option.flag.empty()) continue;
    SCOPED_TRACE(option.key);
    QuantizeOptions made = tuned();
    option.set(made, changed(option, made));
    const std::string command = quantize_command(metadata_of(made), "in.gguf", "out.gguf");
    EXPECT_TRUE(options_json(parsed(command.substr(0, command.find("  #")))) ==
                    options_json(made) ||
                command.find("  # no option says: " + option.key) != std::string::npos)
        << command;
  }
}

TEST(OptionTable, FlagsAndKeysAreUnique) {
  std::set<std::string> flags, keys;
  for (const Option& option : option_table()) {
    EXPECT_TRUE(keys.insert(option.key).second) << option.key;
    if (option.flag.empty()) continue;
    EXPECT_TRUE(flags.insert(option.flag).second) << option.flag;
    EXPECT_FALSE(option.help.empty()) << option.flag;
  }
}

TEST(OptionTable, WordsThatAreNoValueAreRefused) {
  const auto why = [](const char* flag, const std::string& word) {
    return calibrate::refusal([&] { parse_option(find_option(flag), {word}); });
  };
  EXPECT_THAT(why("window", "many"), HasSubstr("'many' is no whole number"));
  EXPECT_THAT(why("window", "12.5"), HasSubstr("no whole number"));
  EXPECT_THAT(why("self-temperature", "1,2"), HasSubstr("no number"));
  EXPECT_THAT(why("seed", "-1"), HasSubstr("no whole number"));
  EXPECT_THAT(why("method", "best"), HasSubstr("use spectral, imatrix, plain"));
  EXPECT_THAT(why("without", "everything"), HasSubstr("there is no without 'everything'"));
  EXPECT_EQ(parse_option(find_option("method"), {"PLAIN"}), OptionValue(std::string("plain")));
}

class CommandLineTest : public PipelineTest {
 protected:
  /// Runs the command line in the test's folder; what it prints on stdout.
  std::string output_of(const std::string& arguments) {
    const std::string command = "cd '" + path("") + "' && '" SQ_BINARY_DIR "/bin/spectralquant' " +
                                arguments + " > printed 2> said";
    EXPECT_EQ(std::system(command.c_str()), 0) << slurp(path("said"));
    return slurp(path("printed"));
  }
};

TEST_F(CommandLineTest, ReadsThePrintedCommandBack) {
  for (const auto* effort : {"fast", "standard"}) {
    QuantizeOptions made = options();
    made.calibration.self_tokens = 640;
    made.tune.tokens = 4096;
    for (const Option& option : option_table()) {
      const std::set<std::string> apart = {"method",      "type",    "effort",
                                           "calibration", "signals", "start"};
      if (!option.flag.empty() && !apart.contains(option.flag) && option.flag != "window")
        option.set(made, changed(option, made));
    }
    find_option("effort").set(made, std::string(effort));
    made.tune.tokens = 4096;
    const std::string command =
        quantize_command(metadata_of(made), "in.gguf", "new.gguf").substr(sizeof "spectralquant");
    const auto plan = nlohmann::json::parse(output_of(command + " --dry-run --json"));
    EXPECT_EQ(plan["options"].dump(), nlohmann::json::parse(options_json(made)).dump()) << command;
    EXPECT_EQ(plan["seed"], made.seed);
  }
}

TEST_F(CommandLineTest, HelpHasEveryOption) {
  const std::string help = output_of("quantize --help");
  for (const Option& option : option_table()) {
    if (option.flag.empty()) continue;
    EXPECT_THAT(help, HasSubstr("--" + option.flag));
  }
}

}  // namespace
}  // namespace spectralquant::pipeline
