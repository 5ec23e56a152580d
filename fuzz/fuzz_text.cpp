// Arbitrary bytes through the tokenizer of the embedded model: every id is a token, and valid UTF-8
// comes back as it was. The first byte chooses how words are cut, the second the options.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/text/tokenizer.h"
#include "spectralquant/text/unicode.h"

using namespace spectralquant;

namespace {

std::vector<text::Tokenizer> make_tokenizers() {
  const auto file = gguf::File::open(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf");
  std::vector<text::Tokenizer> tokenizers;
  for (const char* pre : {"qwen35",   "qwen2",       "llama-bpe",    "gpt-2",
                          "gpt-4o",   "deepseek-v3", "falcon",       "tekken",
                          "smollm",   "chatglm-bpe", "bailingmoe",   "seed-coder",
                          "default",  "minicpm5",    "deepseek-llm", "deepseek-coder",
                          "spark2_5", "youtu",       "jais-2",       "bloom",
                          "viking",   "exaone-moe",  "chameleon",    "granite-embed-multi-97m",
                          "tiny_aya", "superbpe",    "kimi-k2",      "ufakzeka",
                          "afmoe",    "laguna",      "k2-horizon"}) {
    gguf::Metadata metadata = file.metadata();
    metadata.set("tokenizer.ggml.pre", gguf::Value::of_string(pre));
    tokenizers.push_back(text::Tokenizer::from_metadata(metadata));
  }
  return tokenizers;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizers = make_tokenizers();
  if (size < 2) return 0;
  const auto& tokenizer = tokenizers[data[0] % tokenizers.size()];
  const text::EncodeOptions options{.add_special = (data[1] & 1) != 0,
                                    .parse_special = (data[1] & 2) != 0};
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto ids = tokenizer.encode(text, options);
  for (const auto id : ids)
    if (id < 0 || static_cast<std::size_t>(id) >= tokenizer.vocab_size()) __builtin_trap();
  const auto back = tokenizer.decode(ids);
  // BOS would be rendered too
  const bool comes_back =
      !options.add_special && text::find_invalid_utf8(text) == std::string_view::npos;
  if (comes_back && back != text) __builtin_trap();
  return 0;
}
