#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace spectralquant::evaluate {

/// A name for each file: the shortest end of its path that no other one has, without ".gguf".
///
///     model.gguf                                 → model
///     a/gguf/model.gguf, b/gguf/model.gguf       → a/gguf/model, b/gguf/model
///
/// A path that comes again gets a number: "model (2)".
std::vector<std::string> shortest_names(const std::vector<std::string>& paths);

/// Which file `text` means: a path as it was given, a name of shortest_names(), or else an end of
/// one path, with or without ".gguf".
///
/// Shapes   paths, names: one a file, the reference first; it is never meant.
/// Errors   Error(kBadUsage) at `option`: no candidate, or several, which are listed.
std::size_t find_candidate(const std::string& text, const std::vector<std::string>& paths,
                           const std::vector<std::string>& names, const char* option);

}  // namespace spectralquant::evaluate
