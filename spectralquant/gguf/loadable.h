#pragma once
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// Why llama.cpp refuses to load a file, or aborts on it.
struct LoadProblem {
  std::string problem, fix;
};

/// Everything that llama.cpp checks of a model file beyond what File::open() did: types and lengths
/// of the keys it reads, the vocabulary, and for llama, qwen2, qwen3 (without experts) and qwen35
/// every tensor's presence, shape and type. Keys of other architectures are checked as far as all
/// architectures share them.
/// Empty for a file that loads.
///
/// Source   llama.cpp, as of build 11669: ggml/src/gguf.cpp, src/llama-model-loader.cpp,
///          llama-model.cpp (load_hparams), llama-vocab.cpp (load), src/models/*.cpp; each tried
///          on the program itself (tests/gguf/test_stock.cpp).
std::vector<LoadProblem> find_load_problems(const File& file);

/// Throws Error(kBadInput) with the first of them, and how many more there are.
void require_loadable(const File& file);

/// Tensors that llama.cpp does not know in a file whose tensors are checked, such as those of a
/// vision tower. It refuses the file for their sake; other programs read such files.
std::vector<std::string> find_foreign_tensors(const File& file);

/// Why llama.cpp refuses the file, for people: all of the above. Nothing is said of signals and
/// other files without an architecture.
std::vector<std::string> load_refusals(const File& file);

}  // namespace spectralquant::gguf
