#include "spectralquant/pipeline/option_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <type_traits>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/gguf/types.h"
#include "spectralquant/pipeline/calibration_text.h"
#include "spectralquant/pipeline/estimate.h"
#include "spectralquant/quantize/batched_solver.h"

namespace spectralquant::pipeline {
namespace {

using Words = std::vector<std::string>;

// What the result depends on.
bool always(const QuantizeOptions&) { return true; }
bool when_calibrated(const QuantizeOptions& o) { return o.method != Method::kPlain; }
bool with_text(const QuantizeOptions& o) { return when_calibrated(o) && o.signals_file.empty(); }
bool when_solving(const QuantizeOptions& o) { return o.method == Method::kSpectral; }
bool on_a_walk(const QuantizeOptions& o) { return when_solving(o) && o.signals_file.empty(); }
bool when_tuning(const QuantizeOptions& o) { return o.tune.tokens > 0; }

/// A member of the options: of const options a const one.
#define FIELD(name) \
  [](auto& o) -> auto& { return o.name; }

/// An option that is one member, which `access` refers to.
template <typename Access>
Option member(std::string flag, std::string key, bool (*matters)(const QuantizeOptions&),
              std::string type_name, std::string help, Access access,
              std::optional<OptionRange> range = {}) {
  using T = std::remove_cvref_t<decltype(access(std::declval<QuantizeOptions&>()))>;
  // a number is held as the widest of its kind
  using Held =
      std::conditional_t<std::is_integral_v<T> && !std::is_same_v<T, bool>,
                         std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>, T>;
  Option option;
  option.flag = std::move(flag);
  option.key = std::move(key);
  option.help = std::move(help);
  option.type_name = std::move(type_name);
  option.matters = matters;
  option.get = [access](const QuantizeOptions& o) -> OptionValue {
    return static_cast<Held>(access(o));
  };
  option.set = [access](QuantizeOptions& o, const OptionValue& value) {
    access(o) = static_cast<T>(std::get<Held>(value));
  };
  option.range = range;
  return option;
}

/// A member that only programs set.
template <typename Access>
Option member(std::string key, bool (*matters)(const QuantizeOptions&), Access access,
              std::optional<OptionRange> range = {}) {
  return member("", std::move(key), matters, "", "", access, range);
}

Option path(Option option) {
  option.is_path = true;
  return option;
}

Option apart(Option option) {
  option.recorded = Recorded::kApart;
  return option;
}

/// A string that is one of some words. get: index of the present word.
Option choice(std::string flag, std::string key, bool (*matters)(const QuantizeOptions&),
              std::string help, Words choices,
              std::function<std::size_t(const QuantizeOptions&)> get,
              std::function<void(QuantizeOptions&, std::size_t)> set) {
  Option option;
  option.flag = std::move(flag);
  option.key = std::move(key);
  option.help = std::move(help);
  option.type_name = fmt::format("{}", fmt::join(choices, "|"));
  option.matters = matters;
  option.choices = choices;
  option.get = [choices, get](const QuantizeOptions& o) -> OptionValue { return choices[get(o)]; };
  option.set = [choices, set](QuantizeOptions& o, const OptionValue& value) {
    const auto found = std::find(choices.begin(), choices.end(), std::get<std::string>(value));
    set(o, static_cast<std::size_t>(found - choices.begin()));
  };
  return option;
}

Option method() {
  static constexpr Method kMethods[] = {Method::kSpectral, Method::kImatrix, Method::kPlain};
  return choice(
      "method", "method", always,
      "spectral: the solver; plain, imatrix: llama.cpp's own rounding, for comparison",
      {"spectral", "imatrix", "plain"},
      [](const QuantizeOptions& o) {
        return static_cast<std::size_t>(std::find(kMethods, kMethods + 3, o.method) - kMethods);
      },
      [](QuantizeOptions& o, std::size_t i) { o.method = kMethods[i]; });
}

/// Short for output moments and tuning.
Option effort() {
  Option option = choice(
      "effort", "effort", when_solving,
      "what errors are weighted by. fast: the inputs of each matrix; standard: also the effect of "
      "each output on the output distribution, half as much time again; best: as standard, and "
      "tuned against the original (the better of the two files is written): on a GPU minutes to an "
      "hour more; on a CPU half an hour for models of up to 8 million weights, none for larger "
      "ones, and with text of the model's own beside yours",
      {"fast", "standard", "best"},
      [](const QuantizeOptions& o) { return std::size_t{o.two_sided ? 1u : 0u}; },
      [](QuantizeOptions& o, std::size_t i) {
        o.two_sided = i > 0;
        if (i == 2) o.tune.tokens = tokens_of_best(o.input, o.device);
      });
  option.recorded = Recorded::kAsOthers;
  return option;
}

/// A step of the solver that can be left out, for ablations.
struct Step {
  const char* name;
  bool (*left_out)(const QuantizeOptions&);
  void (*leave_out)(QuantizeOptions&);
};

constexpr Step kSteps[] = {
    {"drift", [](const auto& o) { return o.drift_correction == 0; },
     [](auto& o) { o.drift_correction = 0; }},
    {"feedback", [](const auto& o) { return !o.solver.feedback; },
     [](auto& o) { o.solver.feedback = false; }},
    {"live-scales", [](const auto& o) { return o.solver.live_scale_radius == 0; },
     [](auto& o) { o.solver.live_scale_radius = 0; }},
    {"scale-search", [](const auto& o) { return !o.solver.scale_search; },
     [](auto& o) { o.solver.scale_search = false; }},
    {"super-scales", [](const auto& o) { return !o.solver.super_scale_search; },
     [](auto& o) { o.solver.super_scale_search = false; }},
    {"sweeps", [](const auto& o) { return o.solver.rounds == 0; },
     [](auto& o) { o.solver.rounds = 0; }},
};

Option without() {
  Option option;
  option.flag = option.key = "without";
  option.help = "leave out steps of the solver, to measure what each is worth";
  for (const Step& step : kSteps) option.choices.emplace_back(step.name);
  option.type_name = fmt::format("{}", fmt::join(option.choices, "|"));
  option.recorded = Recorded::kAsOthers;
  option.matters = when_solving;
  option.get = [](const QuantizeOptions& o) -> OptionValue {
    Words words;
    for (const Step& step : kSteps)
      if (step.left_out(o)) words.emplace_back(step.name);
    return words;
  };
  option.set = [](QuantizeOptions& o, const OptionValue& value) {
    for (const std::string& word : std::get<Words>(value))
      for (const Step& step : kSteps)
        if (word == step.name) step.leave_out(o);
  };
  return option;
}

Option calibration() {
  Option option;
  option.flag = option.key = "calibration";
  option.help =
      "text the model is run on: files of plain text or JSON, globs, general = the text that comes "
      "with the program, self:N = N tokens that the model writes itself (default: general, and "
      "self:65536 on a GPU or for a model up to 50 M weights)";
  option.type_name = "FILE|general|self:N";
  option.is_path = true;
  option.matters = with_text;
  option.get = [](const QuantizeOptions& o) -> OptionValue { return source_words(o.calibration); };
  option.set = [](QuantizeOptions& o, const OptionValue& value) {
    o.calibration.general = false;
    o.calibration.files.clear();
    o.calibration.self_tokens = 0;
    for (const std::string& word : std::get<Words>(value)) add_source(o.calibration, word);
  };
  return option;
}

Option fallback() {
  static const std::vector<gguf::Type> kTypes = {gguf::Type::Q8_0, gguf::Type::F16,
                                                 gguf::Type::BF16, gguf::Type::F32};
  return choice(
      "fallback", "fallback", always,
      "type for matrices whose columns are no multiple of 256; the file is then not strict",
      {"none", "q8_0", "f16", "bf16", "f32"},
      [](const QuantizeOptions& o) -> std::size_t {
        if (!o.plan.fallback) return 0;
        const auto found = std::find(kTypes.begin(), kTypes.end(), *o.plan.fallback);
        return found == kTypes.end() ? 0 : 1 + static_cast<std::size_t>(found - kTypes.begin());
      },
      [](QuantizeOptions& o, std::size_t i) {
        o.plan.fallback.reset();
        if (i > 0) o.plan.fallback = kTypes[i - 1];
      });
}

/// Type of the matrices.
Option type() {
  Words names;
  for (const format::Grid* grid : format::all_grids()) {
    names.push_back(format::name_of(*grid));
    for (char& c : names.back()) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return choice(
      "type", "type", always, "type of every matrix", names,
      [names](const QuantizeOptions& o) -> std::size_t {
        for (std::size_t i = 0; i < names.size(); ++i)
          if (gguf::type_by_name(names[i]) == o.plan.type) return i;
        return 0;
      },
      [names](QuantizeOptions& o, std::size_t i) {
        o.plan.type = gguf::type_by_name(names[i]).value();
      });
}

/// Name of the solver: of the device, which the result follows from. Nothing sets it.
Option solver() {
  Option option;
  option.key = "solver";
  option.matters = when_solving;
  option.get = [](const QuantizeOptions& o) -> OptionValue {
    const bool on_cpu = o.device.starts_with("cpu");
    return std::string(quantize::name_of_solver(on_cpu ? torch::kCPU : torch::kCUDA));
  };
  option.set = [](QuantizeOptions&, const OptionValue&) {};
  return option;
}

Option moments() {
  return choice(
      "moments", "moments", on_a_walk,
      "model that the moments are of. sequential: the matrices before are already quantized; "
      "static: the original",
      {"sequential", "static"},
      [](const QuantizeOptions& o) { return std::size_t{o.moments == Moments::kStatic ? 1u : 0u}; },
      [](QuantizeOptions& o, std::size_t i) {
        o.moments = i == 0 ? Moments::kSequential : Moments::kStatic;
      });
}

constexpr OptionRange kShare{0, 1}, kAtLeastZero{0, INFINITY}, kAtLeastOne{1, INFINITY};

using Add = std::function<void(Option)>;

void add_text_options(const Add& add) {
  add(calibration());
  add(member("self-temperature", "self_temperature", with_text, "X",
             "temperature at which the model writes its own text",
             FIELD(calibration.self_temperature), OptionRange{0.1, 10}));
  add(member("window", "window_tokens", with_text, "N", "tokens per calibration window",
             FIELD(calibration.window_tokens), OptionRange{2, 65536}));
  add(member("max-tokens", "max_tokens", with_text, "N",
             "use at most this many tokens of the files; 0: all", FIELD(calibration.max_tokens),
             kAtLeastZero));
  add(path(member("signals", "signals", when_calibrated, "FILE",
                  "instead of text: moments gathered before, by spectralquant calibrate or "
                  "llama-imatrix (GGUF)",
                  FIELD(signals_file))));
}

void add_solver_options(const Add& add) {
  add(solver());
  add(moments());
  add(member("drift_correction", on_a_walk, FIELD(drift_correction), kShare));
  add(member("two_sided", when_solving, FIELD(two_sided)));
  add(member("damping", when_solving, FIELD(solver.damping), kAtLeastZero));
  add(member("output_damping", when_solving, FIELD(solver.output_damping), kAtLeastZero));
  add(member("live_scale_radius", when_solving, FIELD(solver.live_scale_radius), kAtLeastZero));
  add(member("feedback", when_solving, FIELD(solver.feedback)));
  add(member("rounds", when_solving, FIELD(solver.rounds), kAtLeastZero));
  add(member("sweeps", when_solving, FIELD(solver.sweeps), kAtLeastZero));
  add(member("scale_search", when_solving, FIELD(solver.scale_search)));
  add(member("super_scale_search", when_solving, FIELD(solver.super_scale_search)));
}

void add_tuning_options(const Add& add) {
  add(member(
      "tune", "tune_tokens", when_tuning, "N",
      "tokens to tune on, repetitions counted. Columns are fixed to the grid a share at a time; "
      "the rest learns the original's output distribution. 0: none (with --effort best: "
      "by the model's size and device)",
      FIELD(tune.tokens), kAtLeastZero));
  add(member("tune_batch_tokens", when_tuning, FIELD(tune.batch_tokens), kAtLeastZero));
  add(member("tune_rate", when_tuning, FIELD(tune.rate), OptionRange{.low = 0, .high = 1}));
  add(member("tune_own_share", when_tuning, FIELD(tune.own_share), kShare));
  add(member("tune_max_file_epochs", when_tuning, FIELD(tune.max_file_epochs), kAtLeastOne));
  add(member("tune_max_own_epochs", when_tuning, FIELD(tune.max_own_epochs), kAtLeastOne));
  add(member("tune_moment_tokens", when_tuning, FIELD(tune.moment_tokens), kAtLeastZero));
}

std::vector<Option> make_table() {
  std::vector<Option> table;
  const Add add = [&](Option option) { table.push_back(std::move(option)); };
  add(method());
  add(type());
  add(member("device", "device", when_calibrated, "DEVICE",
             "where the model runs: cpu, cuda or cuda:N", FIELD(device)));
  add(effort());
  add(without());
  add_text_options(add);
  add_solver_options(add);
  add_tuning_options(add);
  add(fallback());
  add(apart(member("seed", "seed", always, "N", "seed of everything random; part of the result",
                   FIELD(seed))));
  add(apart(member("threads", "threads", always, "N", "threads; 0: all of this machine's",
                   FIELD(n_threads), OptionRange{0, 4096})));
  return table;
}

#undef FIELD

[[noreturn]] void refuse(const Option& option, const std::string& problem, const std::string& fix) {
  throw Error(ErrorCode::kBadUsage, problem, option.flag.empty() ? option.key : "--" + option.flag,
              fix);
}

template <typename T>
T parse_number(const Option& option, const std::string& word) {
  T value{};
  const char* const end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, value);
  if (error != std::errc{} || stop != end) {
    refuse(option,
           fmt::format("'{}' is no {}", word, std::is_integral_v<T> ? "whole number" : "number"),
           fmt::format("give a number, --{} {}", option.flag, option.type_name));
  }
  return value;
}

/// The choice that is the word but for upper and lower case.
std::string parse_choice(const Option& option, const std::string& word) {
  if (option.choices.empty()) return word;
  for (const std::string& known : option.choices) {
    if (std::equal(word.begin(), word.end(), known.begin(), known.end(),
                   [](unsigned char a, unsigned char b) { return std::tolower(a) == b; }))
      return known;
  }
  refuse(option, fmt::format("there is no {} '{}'", option.key, word),
         fmt::format("use {}", fmt::join(option.choices, ", ")));
}

/// "at least 0", "0.1 to 10", "above 0 and at most 100".
std::string text_of(const OptionRange& range) {
  if (std::isinf(range.high)) return fmt::format("at least {}", range.low);
  if (!range.above_low && !range.below_high) return fmt::format("{} to {}", range.low, range.high);
  return fmt::format("{} {} and {} {}", range.above_low ? "above" : "at least", range.low,
                     range.below_high ? "below" : "at most", range.high);
}

}  // namespace

const std::vector<Option>& option_table() {
  static const std::vector<Option> table = make_table();
  return table;
}

const Option& find_option(std::string_view flag) {
  const auto& table = option_table();
  return *std::find_if(table.begin(), table.end(),
                       [&](const Option& option) { return option.flag == flag; });
}

OptionValue parse_option(const Option& option, const Words& words) {
  static const QuantizeOptions kDefaults;
  const OptionValue kind = option.get(kDefaults);
  if (std::holds_alternative<bool>(kind)) return words.empty() || words[0] != "false";
  if (std::holds_alternative<Words>(kind)) {
    Words list;
    for (const std::string& word : words) list.push_back(parse_choice(option, word));
    return list;
  }
  const std::string& word = words.at(0);
  if (std::holds_alternative<std::int64_t>(kind)) return parse_number<std::int64_t>(option, word);
  if (std::holds_alternative<std::uint64_t>(kind)) return parse_number<std::uint64_t>(option, word);
  if (std::holds_alternative<double>(kind)) return parse_number<double>(option, word);
  return parse_choice(option, word);
}

Words option_words(const OptionValue& value) {
  return std::visit(
      [](const auto& held) -> Words {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, Words>)
          return held;
        else if constexpr (std::is_same_v<T, bool>)
          return {};
        else
          return {fmt::format("{}", held)};
      },
      value);
}

void check_ranges(const QuantizeOptions& options) {
  for (const Option& option : option_table()) {
    if (!option.range) continue;
    const double value = std::visit(
        [](const auto& held) {
          if constexpr (std::is_arithmetic_v<std::decay_t<decltype(held)>>)
            return static_cast<double>(held);
          else
            return 0.0;
        },
        option.get(options));
    const auto [low, high, above_low, below_high] = *option.range;
    const bool fits =
        (above_low ? value > low : value >= low) && (below_high ? value < high : value <= high);
    if (!fits)
      refuse(option, fmt::format("{} is {}", option.key, value),
             fmt::format("use {}", text_of(*option.range)));
  }
}

}  // namespace spectralquant::pipeline
