#include "spectralquant/publish/markdown.h"

#include "spectralquant/evaluate/report.h"
#include "spectralquant/publish/checked_json.h"
#include "spectralquant/publish/evaluation_reader.h"

namespace spectralquant::publish {

std::string to_markdown(const Source& results) {
  return evaluate::to_markdown(evaluation_of(parse_results(results), results.place));
}

}  // namespace spectralquant::publish
