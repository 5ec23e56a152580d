#include <spectralquant/gguf/strict.h>
#include <spectralquant/pipeline/quantize_file.h>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  spectralquant::pipeline::QuantizeOptions options;
  options.input = argv[1];
  options.output = argv[2];
  options.method = spectralquant::pipeline::Method::kPlain;
  options.overwrite = true;
  const auto report = spectralquant::pipeline::quantize_file(options);
  const bool strict =
      spectralquant::gguf::take_inventory(spectralquant::gguf::File::open(argv[2])).strict;
  std::printf("%.2f bits a weight, strict: %s\n", report.matrix_bpw, strict ? "yes" : "no");
  return strict ? 0 : 1;
}
