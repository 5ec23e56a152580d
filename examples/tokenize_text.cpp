// Text to tokens and back, with the model's own tokenizer.
//   tokenize_text model.gguf
#include <cstdio>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/text/tokenizer.h"

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
  const auto file = spectralquant::gguf::File::open(argv[1]);
  const auto tokenizer = spectralquant::text::Tokenizer::from_metadata(file.metadata());
  const std::string text = "Rounding is not local.";
  const auto ids = tokenizer.encode(text);
  std::printf("%zu tokens\n", ids.size());
  return tokenizer.decode(ids) == text ? 0 : 1;
} catch (const spectralquant::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
