// Arbitrary bytes as a file of documents. The first byte chooses its name, whether it is packed
// with gzip, and the chat format.
#include <unistd.h>
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

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

text::ChatFormat format_of(const char* chat_template) {
  gguf::Metadata metadata;
  metadata.set("tokenizer.chat_template", gguf::Value::of_string(chat_template));
  return text::ChatFormat::from_metadata(metadata);
}

std::vector<text::ChatFormat> make_formats() {
  return {format_of("<|im_start|> <think> <tool_response>"),
          format_of("<|im_start|> <think> last_query_index <tool_response> <function="),
          format_of("<start_of_turn>"),
          format_of("[INST] <<SYS>> bos_token + '[INST]"),
          format_of("<|start|> <|channel|> <|message|>"),
          format_of("unknown")};
}

void write_packed(const std::string& path, const std::uint8_t* data, std::size_t size) {
  gzFile file = gzopen(path.c_str(), "wb1");
  gzwrite(file, data, static_cast<unsigned>(size));
  gzclose(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const OwnFile text_file(".txt"), json_file(".jsonl");
  static const std::vector<text::ChatFormat> formats = make_formats();
  if (size < 2) return 0;
  const auto& path = data[0] % 2 == 0 ? text_file.path : json_file.path;
  const auto& chat = formats[data[0] / 4 % formats.size()];
  if (data[0] % 4 < 2) {
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size - 1));
  } else {
    write_packed(path, data + 1, size - 1);
  }
  try {
    for (const auto& document : text::load_corpus({path}, chat).documents)
      if (document.text.empty() || document.origin.empty()) __builtin_trap();
  } catch (const Error& error) {
    // a message a user can act on
    if (error.place().empty() || error.fix().empty()) __builtin_trap();
  }
  return 0;
}
