#include "spectralquant/publish/source.h"

#include <fstream>
#include <iterator>

#include "spectralquant/core/error.h"

namespace spectralquant::publish {

Source read_source(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  Source source{{std::istreambuf_iterator<char>(in), {}}, path};
  if (!in) throw bad_input("cannot read this file", path, "check the name and the permissions");
  return source;
}

}  // namespace spectralquant::publish
