#pragma once
#include <fstream>
#include <sstream>

#include "calibrate/calibrate_fixture.h"
#include "spectralquant/pipeline/quantize_file.h"

namespace spectralquant::pipeline {

using calibrate::refusal;

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spew(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// A tool of stock llama.cpp, from LLAMA_CPP_BIN or PATH; "" if there is none.
inline std::string find_tool(const std::string& name) {
  std::string folders;
  if (const char* own = std::getenv("LLAMA_CPP_BIN")) folders = std::string(own) + ":";
  if (const char* path = std::getenv("PATH")) folders += path;
  std::istringstream list(folders);
  for (std::string folder; std::getline(list, folder, ':');) {
    if (const std::string tool = folder + "/" + name; !folder.empty() && ::access(tool.c_str(), X_OK) == 0) return tool;
  }
  return "";
}

/// A tiny model and some text for it.
class PipelineTest : public calibrate::FolderTest {
 protected:
  void SetUp() override {
    model::write_tiny_qwen35(path("in.gguf"), tiny_);
    std::string text;
    std::mt19937_64 random(5);
    const std::vector<std::string> words{"the ", "river ", "runs ", "to ", "a ", "sea ", "of ", "stone, ", "and ", "night. "};
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
