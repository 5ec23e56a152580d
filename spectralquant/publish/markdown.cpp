#include "spectralquant/publish/markdown.h"

#include "spectralquant/evaluate/report.h"
#include "spectralquant/evaluate/report_json.h"

namespace spectralquant::publish {

std::string to_markdown(const Source& results) {
  return evaluate::to_markdown(
      evaluate::evaluation_of(evaluate::parse_results(results.text, results.place), results.place));
}

}  // namespace spectralquant::publish
