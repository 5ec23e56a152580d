#pragma once
#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <string>

namespace spectralquant::test {

/// Path of one of stock llama.cpp's tools, looked for in LLAMA_CPP_BIN, then in PATH; empty when it
/// is not there.
inline std::string find_tool(const std::string& name) {
  std::string folders;
  if (const char* own = std::getenv("LLAMA_CPP_BIN")) folders = std::string(own) + ":";
  if (const char* path = std::getenv("PATH")) folders += path;
  std::istringstream list(folders);
  for (std::string folder; std::getline(list, folder, ':');) {
    if (const std::string tool = folder + "/" + name;
        !folder.empty() && ::access(tool.c_str(), X_OK) == 0)
      return tool;
  }
  return "";
}

}  // namespace spectralquant::test
