// What is in a GGUF file, and is it a strict Q4_K file?
//   inspect_file model.gguf
#include <cstdio>

#include "spectralquant/core/error.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/strict.h"

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
  const auto file = spectralquant::gguf::File::open(argv[1]);
  const auto inventory = spectralquant::gguf::take_inventory(file);
  // names come from the file: printable() keeps their control characters off the terminal
  std::printf("%s, %zu tensors, %.2f bits a weight, strict Q4_K: %s\n",
              spectralquant::printable(file.architecture()).c_str(), file.tensors().size(),
              inventory.file_bpw, inventory.strict ? "yes" : "no");
  // The first row of the first matrix, as floats, whatever its type.
  const auto& tensor = file.tensors().front();
  std::vector<float> row(tensor.n_cols());
  spectralquant::gguf::decode(tensor, 0, 1, row.data());
  std::printf("%s[0][0] = %g\n", spectralquant::printable(tensor.name).c_str(), row[0]);
  return 0;
} catch (const spectralquant::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
