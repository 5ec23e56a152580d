#include "spectralquant/cli/calibration_arguments.h"

#include <charconv>

#include "spectralquant/core/error.h"

namespace spectralquant::cli {
namespace {

// enough for H of matrices up to some thousand columns (docs/method.md)
constexpr std::int64_t kDefaultSelfTokens = 131072;

std::int64_t parse_self(const std::string& text) {
  if (text == "self") return kDefaultSelfTokens;
  std::int64_t n = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + 5, end, n);
  if (error != std::errc{} || stop != end || n <= 0)
    throw Error(ErrorCode::kBadUsage, "'" + text + "' is not self:N with a number of tokens",
                "--calibration", "e.g. self:131072");
  return n;
}

}  // namespace

void add_calibration(CLI::App& verb, CalibrationArguments& arguments) {
  verb.add_option("--calibration", arguments.sources,
                  "text the model is run on: .txt or .jsonl files or globs, and self:N = N tokens "
                  "that the model writes itself "
                  "(default self:131072)")
      ->type_name("FILE|self:N");
  verb.add_option("--self-temperature", arguments.self_temperature,
                  "temperature at which the model writes its own text")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 10.0).description(""));
  verb.add_option("--window", arguments.window_tokens, "tokens per calibration window")
      ->capture_default_str()
      ->check(CLI::Range(16, 65536).description(""));
  verb.add_option("--max-tokens", arguments.max_tokens,
                  "use at most this many tokens of the files; 0: all")
      ->capture_default_str();
}

pipeline::CalibrationSource to_source(const CalibrationArguments& arguments, bool needed) {
  pipeline::CalibrationSource source;
  source.window_tokens = arguments.window_tokens;
  source.max_tokens = arguments.max_tokens;
  source.self_temperature = arguments.self_temperature;
  for (const auto& entry : arguments.sources) {
    if (entry == "self" || entry.rfind("self:", 0) == 0)
      source.self_tokens += parse_self(entry);
    else
      source.files.push_back(entry);
  }
  if (needed && arguments.sources.empty()) source.self_tokens = kDefaultSelfTokens;
  return source;
}

}  // namespace spectralquant::cli
