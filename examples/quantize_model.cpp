// The main job from C++: GGUF in, strict Q4_K GGUF out.
//   quantize_model model-bf16.gguf out-q4km.gguf calibration.jsonl
#include <cstdio>

#include "spectralquant/core/error.h"
#include "spectralquant/pipeline/quantize_file.h"

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  spectralquant::pipeline::QuantizeOptions options;
  options.input = argv[1];
  options.output = argv[2];
  options.calibration.files = {argv[3]};
  options.overwrite = true;
  const auto report = spectralquant::pipeline::quantize_file(
      options, [](const spectralquant::ProgressEvent& event) {
        if (event.done == event.total)
          std::printf("%.*s done\n", static_cast<int>(event.phase.size()), event.phase.data());
      });
  std::printf("%.2f bits a weight\n", report.matrix_bpw);
  return 0;
} catch (const spectralquant::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
