#include <fmt/format.h>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {
namespace {

RowDecoder require_decoder(const Tensor& tensor, const std::string& place) {
  if (const RowDecoder decoder = find_decoder(tensor.type)) return decoder;
  throw bad_input(fmt::format("{} is {}, which cannot be decoded to floats", tensor.name,
                              traits(tensor.type).name),
                  place, "convert the model to BF16, F16 or F32");
}

}  // namespace

void decode(const Tensor& tensor, std::uint64_t first_row, std::uint64_t n_rows, float* out) {
  const RowDecoder decoder = require_decoder(tensor, {});
  if (first_row > tensor.n_rows() || n_rows > tensor.n_rows() - first_row)
    throw bad_input(fmt::format("rows {} to {} of {} were asked for, which has {}", first_row,
                                first_row + n_rows, tensor.name, tensor.n_rows()));
  decoder(tensor.data + first_row * tensor.row_bytes(), n_rows * tensor.n_cols(), out);
}

}  // namespace spectralquant::gguf
