#include "spectralquant/publish/spectra_json.h"

#include "spectralquant/evaluate/json_check.h"

namespace spectralquant::publish {

using nlohmann::json;

constexpr const char* kMakeSpectra =
    "give the output of: spectralquant inspect FILE --signals SIGNALS --json";

json parse_spectra(const Source& source) {
  json spectra = evaluate::parse_json(source.text, source.place, kMakeSpectra);
  const evaluate::JsonCheck check(source.place, kMakeSpectra);
  if (!spectra.is_object())
    check.fail("", "this is not what inspect --signals prints: an object was expected");
  const auto named = [&](const json& entry, const std::string& at) {
    check.texts(entry, at, {"name"});
  };
  check.each(spectra, "", "variants", false, named);
  check.each(spectra, "", "blocks", false, named);
  check.each(spectra, "", "matrices", true, named);
  return spectra;
}

}  // namespace spectralquant::publish
