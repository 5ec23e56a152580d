#pragma once
#include <stdexcept>
#include <string>

namespace spectralquant {

/// Who has to act on an error. The command line maps each kind to an exit code.
enum class ErrorCode {
  kFailed,    ///< the job could not be done (out of memory, lost device, faulty disk); exit 1
  kBadUsage,  ///< options that contradict each other or do not exist; exit 2
  kBadInput,  ///< a file, value or place that is refused as it is, a full disk too; exit 3
};

/// The one exception of the library: what is wrong, where, and what to do about it.
///
/// what() reads "problem\n    at:  place\n    fix: fix"; empty parts are left out.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string problem, std::string place = {}, std::string fix = {});

  ErrorCode code() const noexcept { return code_; }
  const std::string& problem() const noexcept { return problem_; }
  const std::string& place() const noexcept { return place_; }
  const std::string& fix() const noexcept { return fix_; }

 private:
  ErrorCode code_;
  std::string problem_, place_, fix_;
};

/// Shorthand for Error(kBadInput, …): input that can be neither read nor used as it is.
Error bad_input(std::string problem, std::string place = {}, std::string fix = {});

/// What an exception says, without the stack that libtorch appends to it.
std::string without_backtrace(const std::string& what);

}  // namespace spectralquant
