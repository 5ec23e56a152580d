#include "spectralquant/publish/checked_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iterator>

#include "spectralquant/core/error.h"

namespace spectralquant::publish {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;  // the highest "format" of eval's JSON whose fields are known here
constexpr const char* kMakeResults = "give the output of: spectralquant eval ... --json";
constexpr const char* kMakeSpectra =
    "give the output of: spectralquant inspect FILE --signals SIGNALS --json";

/// Line and column of a byte, from 1.
std::string line_and_column(const std::string& text, std::size_t byte) {
  const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(byte, text.size()));
  const auto line = 1 + std::count(text.begin(), end, '\n');
  const auto last_break = std::find(std::make_reverse_iterator(end), text.rend(), '\n').base();
  return fmt::format("line {}, column {}", line, std::max<std::ptrdiff_t>(1, end - last_break));
}

json parse(const Source& source, const char* fix) {
  try {
    return json::parse(source.text);
  } catch (const json::parse_error& error) {
    throw bad_input("this is no JSON",
                    fmt::format("{}, {}", source.place, line_and_column(source.text, error.byte)),
                    fix);
  }
}

/// A document being checked: remembers what to say when a value is of the wrong kind.
class Check {
 public:
  Check(const Source& source, const char* fix) : place_(source.place), fix_(fix) {}

  [[noreturn]] void fail(const std::string& pointer, const std::string& problem) const {
    throw bad_input(problem,
                    fmt::format("{}, {}", place_, pointer.empty() ? "at the top" : pointer), fix_);
  }

  /// Objects of the list `key`; empty if it is absent and may be.
  void each(const json& parent, const std::string& pointer, const char* key, bool required,
            const std::function<void(const json&, const std::string&)>& check) const {
    const std::string at = pointer + "/" + key;
    const auto found = parent.find(key);
    if (found == parent.end() || found->is_null()) {
      if (required) fail(pointer, fmt::format("there is no list \"{}\"", key));
      return;
    }
    if (!found->is_array()) fail(at, "this must be a list");
    for (std::size_t i = 0; i < found->size(); ++i) {
      const std::string item = fmt::format("{}/{}", at, i);
      if (!(*found)[i].is_object()) fail(item, "this must be an object");
      check((*found)[i], item);
    }
  }

  void text(const json& parent, const std::string& pointer,
            std::initializer_list<const char*> keys) const {
    for (const char* key : keys)
      if (const auto found = parent.find(key); found == parent.end() || !found->is_string())
        fail(pointer + "/" + key, "this must be a text");
  }

  void numbers(const json& parent, const std::string& pointer,
               std::initializer_list<const char*> keys) const {
    for (const char* key : keys)
      if (const auto found = parent.find(key);
          found != parent.end() && !found->is_null() && !found->is_number())
        fail(pointer + "/" + key, "this must be a number");
  }

  void intervals(const json& parent, const std::string& pointer,
                 std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      const auto found = parent.find(key);
      if (found == parent.end() || found->is_null()) continue;
      if (!found->is_object())
        fail(pointer + "/" + key, "this must be an interval {mean, low, high}");
      numbers(*found, pointer + "/" + key, {"mean", "low", "high"});
    }
  }

 private:
  std::string place_;
  const char* fix_;
};

void check_model(const Check& check, const json& model, const std::string& at) {
  check.text(model, at, {"name", "path", "hash"});
  check.numbers(model, at, {"file_bpw", "matrix_bpw", "mebibytes"});
  const auto scores = model.find("scores");
  if (scores == model.end() || !scores->is_object())
    check.fail(at + "/scores", "this must be an object with one entry a suite");
  for (const auto& [suite, score] : scores->items()) {
    const std::string place = at + "/scores/" + suite;
    if (!score.is_object()) check.fail(place, "this must be an object");
    check.numbers(score, place, {"tokens", "kld_p90", "kld_p99", "kld_max", "rms_delta_p"});
    check.intervals(score, place, {"loss", "kld", "same_top", "gap_recovery"});
  }
}

}  // namespace

Source read_source(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  Source source{{std::istreambuf_iterator<char>(in), {}}, path};
  if (!in) throw bad_input("cannot read this file", path, "check the name and the permissions");
  return source;
}

json parse_results(const Source& source) {
  json results = parse(source, kMakeResults);
  const Check check(source, kMakeResults);
  if (!results.is_object()) check.fail("", "this is not what eval prints: an object was expected");
  if (const auto format = results.find("format");
      format != results.end() &&
      (!format->is_number_integer() || format->get<std::int64_t>() > kFormat))
    throw bad_input("these results are of a newer format than this program knows", source.place,
                    "use the spectralquant that made them, or a newer one");
  const auto both = [&](const json& entry, const std::string& at) {
    check.text(entry, at, {"model", "suite"});
  };
  check.each(results, "", "suites", true, [&](const json& suite, const std::string& at) {
    check.text(suite, at, {"name", "file", "protocol"});
  });
  check.each(results, "", "models", true,
             [&](const json& model, const std::string& at) { check_model(check, model, at); });
  check.each(results, "", "pairs", false, [&](const json& pair, const std::string& at) {
    check.text(pair, at, {"suite", "a", "b"});
  });
  check.each(results, "", "overlap", false, [&](const json& overlap, const std::string& at) {
    check.text(overlap, at, {"calibration", "suite", "label"});
  });
  for (const char* key : {"alignment", "continuations", "details"})
    check.each(results, "", key, false, both);
  check.each(results, "", "choices", false, [&](const json& choices, const std::string& at) {
    check.text(choices, at, {"name"});
  });
  return results;
}

json parse_spectra(const Source& source) {
  json spectra = parse(source, kMakeSpectra);
  const Check check(source, kMakeSpectra);
  if (!spectra.is_object())
    check.fail("", "this is not what inspect --signals prints: an object was expected");
  const auto named = [&](const json& entry, const std::string& at) {
    check.text(entry, at, {"name"});
  };
  check.each(spectra, "", "variants", false, named);
  check.each(spectra, "", "blocks", false, named);
  check.each(spectra, "", "matrices", true, named);
  return spectra;
}

}  // namespace spectralquant::publish
