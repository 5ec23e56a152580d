// Arbitrary bytes as a GGUF file: the header is read, then every value and every tensor that it
// promised.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/header.h"
#include "spectralquant/text/chat.h"
#include "spectralquant/text/tokenizer.h"

using namespace spectralquant;

namespace {

void read_value(const gguf::Value& value) {
  (void)value.as_int();
  (void)value.as_number();
  (void)value.as_bool();
  (void)value.as_string();
  (void)value.strings();
  (void)value.numbers();
  (void)value.to_display();
  if (gguf::Value(value.type(), value.bytes()).bytes() != value.bytes()) __builtin_trap();
}

/// Row by row, so that a lying size shows in the row it belongs to.
void read_tensor(const gguf::Tensor& tensor) {
  if (!gguf::traits(tensor.type).decodable) return;
  std::vector<float> row(tensor.n_cols());
  for (std::uint64_t r = 0; r < tensor.n_rows(); ++r) gguf::decode(tensor, r, 1, row.data());
  try {
    gguf::require_finite(tensor, "fuzz.gguf");
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto header =
        gguf::parse_header(reinterpret_cast<const std::byte*>(data), size, "fuzz.gguf");
    for (const auto& item : header.metadata.items()) read_value(item.value);
    for (const auto& tensor : header.tensors) read_tensor(tensor);
    (void)text::ChatFormat::from_metadata(header.metadata)
        .render({{"user", "hello"}, {"assistant", "world"}});
    const auto tokenizer = text::Tokenizer::from_metadata(header.metadata);
    (void)tokenizer.decode(tokenizer.encode("Hello, 12 worlds!\n\n"));
  } catch (const Error&) {
  }
  return 0;
}
