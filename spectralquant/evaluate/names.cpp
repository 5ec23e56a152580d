#include "spectralquant/evaluate/names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "spectralquant/core/error.h"

namespace spectralquant::evaluate {
namespace {

/// The path without what means nothing ("./", "a/../") and without ".gguf".
std::string plain_path(const std::string& path) {
  std::string plain = std::filesystem::path(path).lexically_normal().string();
  if (plain.size() > 5 && plain.ends_with(".gguf")) plain.resize(plain.size() - 5);
  return plain;
}

/// The last n parts of a path; all of it where it has no more.
std::string end_of(const std::string& path, std::size_t n) {
  std::size_t begin = path.size();
  for (; n > 0; --n) {
    if (begin == 0) return path;
    const auto slash = path.rfind('/', begin - 1);
    if (slash == std::string::npos) return path;
    begin = slash;
  }
  return path.substr(begin + 1);
}

bool is_end_of(const std::string& text, const std::string& path) {
  return path == text || (path.ends_with(text) && path[path.size() - text.size() - 1] == '/');
}

}  // namespace

std::vector<std::string> shortest_names(const std::vector<std::string>& paths) {
  std::vector<std::string> plain, names;
  for (const auto& path : paths) plain.push_back(plain_path(path));
  for (const auto& path : plain) names.push_back(end_of(path, 1));
  const auto of_one_name = [&] {
    std::map<std::string, std::vector<std::size_t>> files;
    for (std::size_t i = 0; i < names.size(); ++i) files[names[i]].push_back(i);
    std::erase_if(files, [](const auto& entry) { return entry.second.size() == 1; });
    return files;
  };
  bool longer = true;
  for (std::size_t n = 2; longer; ++n) {
    longer = false;
    for (const auto& [name, files] : of_one_name()) {
      const bool one_path = std::all_of(files.begin(), files.end(),
                                        [&](auto i) { return plain[i] == plain[files[0]]; });
      if (one_path) continue;
      for (auto i : files) {
        names[i] = end_of(plain[i], n);
        longer = longer || names[i] != name;
      }
    }
  }
  // One path twice, or paths that differ in ".gguf" alone.
  for (const auto& [name, files] : of_one_name())
    for (std::size_t k = 1; k < files.size(); ++k)
      names[files[k]] = fmt::format("{} ({})", name, k + 1);
  return names;
}

std::size_t find_candidate(const std::string& text, const std::vector<std::string>& paths,
                           const std::vector<std::string>& names, const char* option) {
  for (const auto* exact : {&paths, &names})
    for (std::size_t i = 1; i < exact->size(); ++i)
      if ((*exact)[i] == text) return i;
  std::vector<std::size_t> found;
  for (std::size_t i = 1; i < paths.size(); ++i)
    if (is_end_of(plain_path(text), plain_path(paths[i]))) found.push_back(i);
  if (found.size() == 1) return found[0];
  if (found.empty())
    throw Error(ErrorCode::kBadUsage, fmt::format("'{}' is none of the candidates", text), option,
                fmt::format("give one of: {}",
                            fmt::join(names.begin() + (names.empty() ? 0 : 1), names.end(), ", ")));
  std::vector<std::string> meant;
  for (auto i : found) meant.push_back(names[i]);
  throw Error(
      ErrorCode::kBadUsage,
      fmt::format("'{}' means {} candidates: {}", text, found.size(), fmt::join(meant, ", ")),
      option, "give more of the path, as in: " + meant[0]);
}

}  // namespace spectralquant::evaluate
