#include "spectralquant/pipeline/quantize_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/pipeline/provenance.h"

namespace spectralquant::pipeline {
namespace {

using nlohmann::json;

/// Names of the texts in a description "a.jsonl+b.txt+self:65536".
std::vector<std::string> texts_of(const std::string& description) {
  std::vector<std::string> texts;
  for (std::size_t begin = 0; begin <= description.size();) {
    const auto end = std::min(description.find('+', begin), description.size());
    if (const auto part = description.substr(begin, end - begin);
        !part.empty() && !part.starts_with("self:"))
      texts.push_back(part);
    begin = end + 1;
  }
  return texts;
}

/// Reads the options one by one and knows at the end which were left.
class Options {
 public:
  Options(json values, std::string place) : values_(std::move(values)), place_(std::move(place)) {}

  template <typename T>
  T take(const char* key, T absent) {
    const auto found = values_.find(key);
    if (found == values_.end()) return absent;
    T value = absent;
    try {
      value = found->get<T>();
    } catch (const json::exception&) {
      refuse(key);
    }
    values_.erase(found);
    return value;
  }

  void require_all_taken(const std::set<std::string>& may_be_left = {}) const {
    for (const auto& [key, value] : values_.items())
      if (!may_be_left.contains(key)) refuse(key);
  }

  [[noreturn]] void refuse(const std::string& key) const {
    throw bad_input("made with an option that this version does not know: " + key, place_,
                    "use the version that made the file (key spectralquant.version)");
  }

 private:
  json values_;
  std::string place_;
};

/// Flags of tuning: how much, and what differs from the defaults.
std::string tuning_flags(Options& tune) {
  const tune::DistillOptions defaults;
  std::string flags = fmt::format(" --tune {}", tune.take<std::int64_t>("tokens", 0));
  if (const auto batch = tune.take("batch_tokens", defaults.batch_tokens);
      batch != defaults.batch_tokens)
    flags += fmt::format(" --tune-batch {}", batch);
  const auto number = [&](double value, double usual, const char* flag) {
    if (value != usual) flags += fmt::format(" {} {}", flag, value);
  };
  number(tune.take("rate", defaults.rate), defaults.rate, "--tune-rate");
  number(tune.take("own_share", defaults.own_share), defaults.own_share, "--tune-own");
  number(tune.take("clip", defaults.clip), defaults.clip, "--tune-clip");
  const auto adam = tune.take<std::vector<double>>("adam", {});
  if (adam.size() == 3) number(adam[2], defaults.adam.damping, "--tune-damping");
  if (tune.take("by_block", defaults.by_block)) flags += " --tune-blocks";
  if (tune.take("bfloat16", defaults.bfloat16)) flags += " --tune-bfloat16";
  // no option of the command line sets these
  tune.require_all_taken({"rates", "fall", "max_epochs", "measurements", "patience"});
  return flags;
}

}  // namespace

std::string quantize_command(const gguf::Metadata& metadata, const std::string& input,
                             const std::string& output) {
  const auto text = metadata.string_or("spectralquant.options", "");
  json values = json::parse(text, nullptr, false);
  if (!values.is_object())
    throw bad_input(
        "this file does not say how it was made: it has no options of spectralquant quantize",
        metadata.place, "give a file that spectralquant quantize wrote");
  const QuantizeOptions defaults;
  Options options(std::move(values), metadata.place);
  std::string command =
      fmt::format("spectralquant quantize {} -o {}", shell_path(input), shell_path(output));
  const auto method = options.take<std::string>("method", "");
  if (method != name_of(defaults.method))
    command += fmt::format(" --method {}", shell_word(method));

  const std::string usual_type = format::name_of(format::grid_of(defaults.plan.type));
  if (const auto type = options.take<std::string>("type", usual_type); type != usual_type)
    command += fmt::format(" --type {}", shell_word(type));

  const bool from_signals = options.take("signals", false);
  const auto self_tokens = options.take<std::int64_t>("self_tokens", 0);
  if (from_signals)
    command += " --signals SIGNALS.gguf";
  else if (method != name_of(Method::kPlain)) {
    command += " --calibration";
    for (const auto& name :
         texts_of(std::string(metadata.string_or("spectralquant.calibration", ""))))
      command += fmt::format(" {}", shell_path(name));
    if (self_tokens > 0) command += fmt::format(" self:{}", self_tokens);
  }
  const auto number = [&](const char* key, std::int64_t usual, const char* flag) {
    if (const auto value = options.take<std::int64_t>(key, usual); value != usual)
      command += fmt::format(" {} {}", flag, value);
  };
  // that of files from before there was a choice
  const auto temperature = options.take("self_temperature", 1.0);
  if (self_tokens > 0 && temperature != defaults.calibration.self_temperature)
    command += fmt::format(" --self-temperature {}", temperature);
  number("window_tokens", defaults.calibration.window_tokens, "--window");
  number("max_tokens", defaults.calibration.max_tokens, "--max-tokens");

  if (const auto moments =
          options.take<std::string>("moments", std::string(name_of(defaults.moments)));
      moments != name_of(defaults.moments) && !from_signals)
    command += fmt::format(" --moments {}", shell_word(moments));
  if (!options.take("two_sided", true)) command += " --effort fast";
  std::vector<std::string> without;
  if (options.take("drift_correction", defaults.drift_correction) == 0) without.push_back("drift");
  Options solver(options.take("solver", json::object()), metadata.place);
  if (!solver.take("feedback", true)) without.push_back("feedback");
  if (solver.take("live_scale_radius", defaults.solver.live_scale_radius) == 0)
    without.push_back("live-scales");
  if (solver.take("rounds", defaults.solver.rounds) == 0) without.push_back("sweeps");
  if (!solver.take("scale_search", true)) without.push_back("scale-search");
  if (!solver.take("super_scale_search", true)) without.push_back("super-scales");
  // no option of the command line sets these
  solver.require_all_taken({"name", "damping", "output_damping", "sweeps"});
  for (const auto& step : without) command += fmt::format(" --without {}", step);

  if (!options.take<std::string>("start", "").empty()) command += " --start START.gguf";
  if (const auto tune = options.take("tune", json::object()); !tune.empty()) {
    Options taken(tune, metadata.place);
    command += tuning_flags(taken);
  }
  if (const auto fallback = options.take<std::string>("fallback", ""); !fallback.empty())
    command += fmt::format(" --fallback {}", shell_word(fallback));
  if (const auto device = options.take<std::string>("device", defaults.device);
      device != defaults.device)
    command += fmt::format(" --device {}", shell_word(device));
  if (const auto seed = metadata.int_or("spectralquant.seed", 0); seed != 0)
    command += fmt::format(" --seed {}", seed);
  if (const auto threads = metadata.int_or("spectralquant.threads", 0); threads != 0)
    command += fmt::format(" --threads {}", threads);
  options.require_all_taken();
  return command;
}

}  // namespace spectralquant::pipeline
