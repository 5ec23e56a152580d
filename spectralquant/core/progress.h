#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

namespace spectralquant {

/// One step of a long job. The library never prints: it reports, the caller draws.
struct ProgressEvent {
  std::string_view phase;      ///< "calibrate", "solve", "score", …
  std::string_view item;       ///< what is being worked on: a tensor, a block, a suite
  std::uint64_t done = 0;      ///< units finished in this phase, 0..total
  std::uint64_t total = 0;     ///< units of this phase; 0 when not known
  std::string_view unit = {};  ///< "tokens", "weights", "windows"
};

/// Called from the thread that runs the job; may throw to stop it. Empty means silent.
using Progress = std::function<void(const ProgressEvent&)>;

inline void report(const Progress& progress, const ProgressEvent& event) {
  if (progress) progress(event);
}

}  // namespace spectralquant
