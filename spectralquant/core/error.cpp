#include "spectralquant/core/error.h"

#include <utility>

#include "spectralquant/core/printable.h"

namespace spectralquant {
namespace {

std::string join(const std::string& problem, const std::string& place, const std::string& fix) {
  std::string text = problem;
  if (!place.empty()) text += "\n    at:  " + place;
  if (!fix.empty()) text += "\n    fix: " + fix;
  return text;
}

}  // namespace

// The texts quote names and values of files: each becomes printable, on one line.
Error::Error(ErrorCode code, std::string problem, std::string place, std::string fix)
    : std::runtime_error(join(printable(problem), printable(place), printable(fix))),
      code_(code),
      problem_(printable(problem)),
      place_(printable(place)),
      fix_(printable(fix)) {}

Error bad_input(std::string problem, std::string place, std::string fix) {
  return Error(ErrorCode::kBadInput, std::move(problem), std::move(place), std::move(fix));
}

std::string without_backtrace(const std::string& what) {
  std::string text = what.substr(0, what.find("\nException raised from"));
  text.erase(text.find_last_not_of('\n') + 1);
  for (std::size_t at; (at = text.find('\n')) != std::string::npos;) text.replace(at, 1, "; ");
  return text;
}

}  // namespace spectralquant
