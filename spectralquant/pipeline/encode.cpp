#include "spectralquant/pipeline/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "spectralquant/core/error.h"
#include "spectralquant/format/round.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/gguf/scan.h"

namespace spectralquant::pipeline {
namespace {

std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // NaN stays NaN
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// Values converted at once.
constexpr std::uint64_t kEncodedPieceValues = std::uint64_t{1} << 22;

/// Throws if rows of `source`, which are finite, are no longer so in their new type.
void require_held(const gguf::Tensor& source, const gguf::Tensor& piece, std::uint64_t first_row,
                  const std::vector<float>& values, const std::string& file_path) {
  const gguf::ValueScan scan = gguf::scan_values(piece);
  if (scan.n_not_finite == 0) return;
  const std::string_view type = gguf::traits(piece.type).name;
  // A block with one scale is lost as a whole: the largest of its values is to blame.
  const std::uint32_t block = gguf::traits(piece.type).block_values;
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(scan.first / block * block);
  const auto largest = std::max_element(
      begin, begin + block, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  const auto at = static_cast<std::uint64_t>(largest - values.begin());
  throw bad_input(
      fmt::format("{} is {:g} at row {}, column {}, which {} cannot hold", source.name, *largest,
                  first_row + at / source.n_cols(), at % source.n_cols(), type),
      fmt::format("{}, {} {} {}", file_path, source.name, gguf::traits(source.type).name,
                  source.shape_text()),
      "allow a type with a wider range: --fallback bf16 or f32");
}

}  // namespace

void encode_tensor(const gguf::Tensor& source, gguf::Type type, const std::string& file_path,
                   const std::function<void(std::uint64_t, const std::vector<std::byte>&)>& body) {
  const std::uint64_t cols = source.n_cols(), rows = source.n_rows(),
                      step = std::max<std::uint64_t>(1, kEncodedPieceValues / cols);
  std::vector<float> values;
  std::uint64_t offset = 0;
  for (std::uint64_t row = 0; row < rows; row += step) {
    const std::uint64_t n = std::min(step, rows - row);
    values.resize(n * cols);
    gguf::decode(source, row, n, values.data());
    const std::vector<std::byte> bytes = encode(type, values.data(), values.size());
    const gguf::Tensor piece{source.name, type, 2, {cols, n, 1, 1}, bytes.data(), bytes.size()};
    require_held(source, piece, row, values, file_path);
    body(offset, bytes);
    offset += bytes.size();
  }
}

std::vector<std::byte> encode(gguf::Type type, const float* values, std::size_t n) {
  const gguf::TypeTraits& layout = gguf::traits(type);
  std::vector<std::byte> out(n / layout.block_values * layout.block_bytes);
  switch (type) {
    case gguf::Type::F32:
      std::memcpy(out.data(), values, out.size());
      return out;
    case gguf::Type::F16:
    case gguf::Type::BF16:
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint16_t bits =
            type == gguf::Type::F16 ? gguf::float_to_half(values[i]) : float_to_bfloat16(values[i]);
        std::memcpy(out.data() + 2 * i, &bits, sizeof bits);
      }
      return out;
    case gguf::Type::Q8_0:
      return format::round_like_llama(format::Q8_0::kGrid, values,
                                      static_cast<std::int64_t>(n / 32), 32, nullptr, 1)
          .to_bytes();
    default:
      throw Error(ErrorCode::kBadUsage,
                  fmt::format("{} cannot be written as a fallback type", layout.name), {},
                  "use F32, F16, BF16 or Q8_0");
  }
}

}  // namespace spectralquant::pipeline
