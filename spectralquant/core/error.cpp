#include "spectralquant/core/error.h"

#include <utility>

namespace spectralquant {
namespace {

std::string join(const std::string& problem, const std::string& place, const std::string& fix) {
  std::string text = problem;
  if (!place.empty()) text += "\n    at:  " + place;
  if (!fix.empty()) text += "\n    fix: " + fix;
  return text;
}

}  // namespace

Error::Error(ErrorCode code, std::string problem, std::string place, std::string fix)
    : std::runtime_error(join(problem, place, fix)),
      code_(code),
      problem_(std::move(problem)),
      place_(std::move(place)),
      fix_(std::move(fix)) {}

Error bad_input(std::string problem, std::string place, std::string fix) {
  return Error(ErrorCode::kBadInput, std::move(problem), std::move(place), std::move(fix));
}

std::string without_backtrace(const std::string& what) {
  return what.substr(0, what.find("\nException raised from"));
}

}  // namespace spectralquant
