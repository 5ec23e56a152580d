#pragma once
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace spectralquant::tests {

/// The numbers of tests/golden/codec/NAME.
template <class T>
std::vector<T> read_codec_golden(const std::string& name) {
  std::ifstream file(std::string(SQ_SOURCE_DIR) + "/tests/golden/codec/" + name, std::ios::binary);
  if (!file) throw std::runtime_error("missing golden file " + name);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<T> values(bytes.size() / sizeof(T));
  bytes.copy(reinterpret_cast<char*>(values.data()), values.size() * sizeof(T));
  return values;
}

}  // namespace spectralquant::tests
