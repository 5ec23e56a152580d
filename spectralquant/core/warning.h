#pragma once
#include <string_view>

#include "spectralquant/core/progress.h"

namespace spectralquant {

/// The phase of an event whose item is a sentence the user should read; it counts nothing.
inline constexpr std::string_view kWarning = "warning";

inline void warn(const Progress& progress, std::string_view sentence) {
  report(progress, {.phase = kWarning, .item = sentence, .done = 0, .total = 0, .unit = {}});
}

}  // namespace spectralquant
