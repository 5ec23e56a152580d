#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>

#include "spectralquant/core/error.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/gguf/codec/decoder.h"
#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {
namespace {

constexpr std::uint64_t kChunkValues = 1 << 16;  // 256 KiB of floats: stays in a core's own cache
constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

bool is_integer(Type type) {
  return type == Type::I8 || type == Type::I16 || type == Type::I32 || type == Type::I64;
}

RowDecoder require_decoder(const Tensor& tensor, const std::string& place) {
  if (const RowDecoder decoder = find_decoder(tensor.type)) return decoder;
  throw bad_input(fmt::format("{} is {}, which cannot be decoded to floats", tensor.name,
                              traits(tensor.type).name),
                  place, "convert the model to BF16, F16 or F32");
}

bool all_finite(const float* values, std::uint64_t n) {
  // Branch-free so that the compiler vectorizes it: an exponent of all ones marks infinities and
  // NaNs.
  std::uint32_t bad = 0;
  for (std::uint64_t i = 0; i < n; ++i)
    bad |= (std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000u) == 0x7f800000u;
  return bad == 0;
}

}  // namespace

void decode(const Tensor& tensor, std::uint64_t first_row, std::uint64_t n_rows, float* out) {
  const RowDecoder decoder = require_decoder(tensor, {});
  if (first_row > tensor.n_rows() || n_rows > tensor.n_rows() - first_row)
    throw bad_input(fmt::format("rows {} to {} of {} were asked for, which has {}", first_row,
                                first_row + n_rows, tensor.name, tensor.n_rows()));
  decoder(tensor.data + first_row * tensor.row_bytes(), n_rows * tensor.n_cols(), out);
}

void require_finite(const Tensor& tensor, const std::string& file_path) {
  if (is_integer(tensor.type)) return;
  const RowDecoder decoder = require_decoder(tensor, file_path);
  const TypeTraits& layout = traits(tensor.type);
  const std::uint64_t n_values = tensor.n_values(),
                      n_chunks = (n_values + kChunkValues - 1) / kChunkValues;

  // The lowest place wins, so the message does not depend on the threads.
  std::atomic<std::uint64_t> first_bad{kNone};
  parallel_for(n_chunks, 0, [&](std::size_t chunk) {
    const std::uint64_t begin = chunk * kChunkValues, n = std::min(kChunkValues, n_values - begin);
    if (begin > first_bad.load(std::memory_order_relaxed)) return;
    static thread_local std::vector<float> values;
    values.resize(kChunkValues);
    decoder(tensor.data + begin / layout.block_values * layout.block_bytes, n, values.data());
    if (all_finite(values.data(), n)) return;
    const auto bad = std::find_if(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n),
                                  [](float v) { return !std::isfinite(v); });
    const std::uint64_t place = begin + static_cast<std::uint64_t>(bad - values.begin());
    std::uint64_t known = first_bad.load();
    while (place < known && !first_bad.compare_exchange_weak(known, place)) {
    }
  });
  if (first_bad == kNone) return;

  const std::uint64_t place = first_bad, row = place / tensor.n_cols(),
                      column = place % tensor.n_cols();
  const std::uint64_t block = place / layout.block_values * layout.block_values;
  std::vector<float> values(layout.block_values);
  decoder(tensor.data + block / layout.block_values * layout.block_bytes, layout.block_values,
          values.data());
  throw bad_input(
      fmt::format("{} holds {} at row {}, column {}", tensor.name,
                  std::isnan(values[place - block]) ? "NaN" : "an infinity", row, column),
      fmt::format("{}, {} {} {}", file_path, tensor.name, traits(tensor.type).name,
                  tensor.shape_text()),
      "the model file is damaged or was converted with overflow: convert it again as BF16 or F32");
}

}  // namespace spectralquant::gguf
