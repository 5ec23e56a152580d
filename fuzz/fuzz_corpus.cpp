// Arbitrary bytes as a text or JSONL file of documents. The first byte chooses which of the two.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/metadata.h"
#include "spectralquant/text/corpus.h"

using namespace spectralquant;

namespace {

/// A file of this process alone, removed when it ends.
struct OwnFile {
  explicit OwnFile(const std::string& suffix)
      : path((std::filesystem::temp_directory_path() /
              ("spectralquant-fuzz-" + std::to_string(getpid()) + suffix))
                 .string()) {}
  ~OwnFile() { std::remove(path.c_str()); }
  std::string path;
};

text::ChatFormat chatml() {
  gguf::Metadata metadata;
  metadata.set("tokenizer.chat_template",
               gguf::Value::of_string("<|im_start|>{{ role }}\n{{ content }}<|im_end|>\n"));
  return text::ChatFormat::from_metadata(metadata);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const OwnFile text_file(".txt"), jsonl_file(".jsonl");
  static const text::ChatFormat chat = chatml();
  if (size < 1) return 0;
  const auto& path = data[0] % 8 == 0 ? text_file.path : jsonl_file.path;
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size - 1));
  try {
    for (const auto& document : text::load_corpus({path}, chat).documents)
      if (document.text.empty() || document.origin.empty()) __builtin_trap();
  } catch (const Error& error) {
    // a message a user can act on
    if (error.place().empty() || error.fix().empty()) __builtin_trap();
  }
  return 0;
}
