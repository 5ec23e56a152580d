// Lets the model write: what calibration on its own text (self:N) does.
//   sample_text model.gguf
#include <cstdio>

#include "spectralquant/core/error.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/model/sampling.h"
#include "spectralquant/text/tokenizer.h"

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
  using namespace spectralquant;
  const auto file = gguf::File::open(argv[1]);
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  model::Model model(file);
  const auto windows = model::sample(
      model, 2,
      {.window_tokens = 48, .temperature = 1.2, .seed = 1, .first_token = tokenizer.eos()});
  for (const auto& window : windows) {
    const auto text =
        spectralquant::printable(tokenizer.decode(window), spectralquant::Breaks::kKept);
    std::printf("---\n%s\n", text.c_str());
  }
  return 0;
} catch (const spectralquant::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
