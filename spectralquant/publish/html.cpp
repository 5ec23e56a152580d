#include "spectralquant/publish/html.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/evaluate/report_json.h"
#include "spectralquant/publish/spectra_json.h"

namespace spectralquant::publish {
namespace {

using nlohmann::json;

/// Keys whose texts are paths, or begin with one ("folder/texts.jsonl:12").
const std::set<std::string> kPathKeys = {
    "path", "file", "place", "suite_place", "calibration_place", "calibration", "text_file"};

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

/// Six digits are more than any figure here is good for, and half the bytes of a double.
double rounded(double x) {
  if (!std::isfinite(x)) return x;
  return std::strtod(fmt::format("{:.6g}", x).c_str(), nullptr);
}

/// Numbers of six digits, paths without folders, texts and keys printable(). Texts keep their line
/// breaks: passages to browse have several lines.
json compact(const json& value) {
  if (value.is_number_float()) return rounded(value.get<double>());
  if (value.is_string()) return printable(value.get<std::string>(), Breaks::kKept);
  if (value.is_object()) {
    json out = json::object();
    for (const auto& [key, child] : value.items()) {
      if (key == "eigenvalues") continue;  // the curve holds what is drawn
      const bool is_path = child.is_string() && kPathKeys.contains(key);
      out[printable(key, Breaks::kKept)] =
          compact(is_path ? json(file_name(child.get<std::string>())) : child);
    }
    return out;
  }
  if (value.is_array()) {
    json out = json::array();
    for (const auto& child : value) out.push_back(compact(child));
    return out;
  }
  return value;
}

/// JSON that may stand inside a script element: nothing in it can end the element or begin a
/// comment.
std::string embedded(const json& value) {
  const std::string text = json_text(value);
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string counted(std::size_t n, const char* noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

/// What the file is, for the browser's tab and for search.
std::string title_of(const json& results) {
  std::string original = "a model";
  std::size_t n_candidates = 0;
  for (const auto& model : results["models"]) {
    if (model.value("reference", false))
      original = model["name"].get<std::string>();
    else
      ++n_candidates;
  }
  return fmt::format("{}: {} scored on {} – SpectralQuant report", original,
                     counted(n_candidates, "quantization"),
                     counted(results["suites"].size(), "suite"));
}

/// Keeps the first `n_documents` texts to browse and the `n_worst` worst tokens of every candidate
/// and suite.
json with_fewer_details(json results, std::size_t n_documents, std::size_t n_worst) {
  for (auto& entry : results["details"]) {
    for (const auto& [key, most] :
         {std::pair{"documents", n_documents}, std::pair{"worst", n_worst}}) {
      const auto list = entry.find(key);
      if (list != entry.end() && list->is_array() && list->size() > most)
        list->erase(list->begin() + static_cast<std::ptrdiff_t>(most), list->end());
    }
  }
  return results;
}

/// Puts texts into the places of the template. What is put in is not searched again: a name may
/// hold "{{results}}".
std::string filled(std::string_view page, const std::map<std::string_view, std::string>& values) {
  std::string out;
  while (true) {
    const auto open = page.find("{{");
    const auto close = open == std::string_view::npos ? open : page.find("}}", open);
    if (close == std::string_view::npos) break;
    const auto found = values.find(page.substr(open + 2, close - open - 2));
    if (found == values.end()) {  // braces of the page's own script
      out += page.substr(0, open + 2);
      page.remove_prefix(open + 2);
      continue;
    }
    out += page.substr(0, open);
    out += found->second;
    page.remove_prefix(close + 2);
  }
  return out += page;
}

}  // namespace

std::string to_html(const Source& results_source, const Source* spectra_source) {
  const json results = compact(evaluate::parse_results(results_source.text, results_source.place));
  const json spectra = spectra_source ? compact(parse_spectra(*spectra_source)) : json(nullptr);
  const std::string title = escaped(title_of(results)), spectra_text = embedded(spectra);
  constexpr std::array<std::pair<std::size_t, std::size_t>, 6> kDetails = {
      {{8, 40}, {4, 40}, {2, 30}, {1, 20}, {1, 8}, {0, 0}}};
  std::size_t size_bytes = 0;
  for (const auto& [n_documents, n_worst] : kDetails) {
    const std::string page = filled(
        page_template(), {{"title", title},
                          {"results", embedded(with_fewer_details(results, n_documents, n_worst))},
                          {"spectra", spectra_text}});
    if (page.size() < kMaxPageBytes) return page;
    size_bytes = page.size();
  }
  throw bad_input(
      fmt::format(
          "the report would take {:.1f} MB even without texts to browse; {:.0f} MB is the most",
          size_bytes / 1e6, kMaxPageBytes / 1e6),
      results_source.place, "score fewer candidates or suites in one run, or leave --spectra out");
}

}  // namespace spectralquant::publish
