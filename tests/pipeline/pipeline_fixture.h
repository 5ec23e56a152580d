#pragma once
#include <fstream>

#include "calibrate/calibrate_fixture.h"
#include "spectralquant/pipeline/quantize_file.h"
#include "stock_tool.h"

namespace spectralquant::pipeline {

using calibrate::refusal;
using spectralquant::test::find_tool;

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spew(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// A tiny model and some text for it.
class PipelineTest : public calibrate::FolderTest {
 protected:
  void SetUp() override {
    model::write_tiny_qwen35(path("in.gguf"), tiny_);
    std::string text;
    std::mt19937_64 random(5);
    const std::vector<std::string> words{"the ", "river ", "runs ",   "to ",  "a ",
                                         "sea ", "of ",    "stone, ", "and ", "night. "};
    for (int i = 0; i < 400; ++i) text += words[random() % words.size()];
    spew(path("text.txt"), text);
  }

  QuantizeOptions options(Method method = Method::kSpectral) const {
    QuantizeOptions options;
    options.input = path("in.gguf");
    options.output = path("out.gguf");
    options.method = method;
    options.n_threads = 1;
    options.overwrite = true;
    if (method != Method::kPlain) {
      options.calibration.files = {path("text.txt")};
      options.calibration.window_tokens = 64;
    }
    return options;
  }

  model::TinyOptions tiny_;
};

}  // namespace spectralquant::pipeline
