#include "spectralquant/evaluate/file_facts.h"

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/strict.h"

namespace spectralquant::evaluate {

Row describe(const gguf::File& file) {
  const auto inventory = gguf::take_inventory(file);
  Row row;
  row.path = file.path();
  row.hash = file.hash();
  row.size_bytes = inventory.file_bytes;
  row.file_bpw = inventory.file_bpw;
  row.matrix_bpw = inventory.matrix_bpw;
  row.strict = inventory.strict && inventory.matrix_type == gguf::Type::Q4_K;
  for (const auto& [type, part] : inventory.types)
    row.types[std::string(gguf::traits(type).name)] = part.n_values;
  return row;
}

std::string first_not_finite(const gguf::File& file, Cache& cache) {
  const std::string key = "revision 1\nfile " + file.hash() + "\n";
  if (const auto known = cache.find("finite", key)) return *known;
  std::string found;
  for (const auto& tensor : file.tensors()) {
    if (!gguf::traits(tensor.type).decodable) continue;
    try {
      gguf::require_finite(tensor, file.path());
    } catch (const Error& error) {
      found = error.problem();
      break;
    }
  }
  cache.store("finite", key, found);
  return found;
}

}  // namespace spectralquant::evaluate
