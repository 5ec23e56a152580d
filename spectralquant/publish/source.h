#pragma once
#include <string>

namespace spectralquant::publish {

/// JSON as it was read, and where from: what reports are made of.
struct Source {
  std::string text;
  std::string place;  ///< file name for error messages
};

/// Errors   Error(kBadInput) if the file cannot be read.
Source read_source(const std::string& path);

}  // namespace spectralquant::publish
