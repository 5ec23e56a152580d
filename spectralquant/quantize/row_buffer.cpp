#include "spectralquant/quantize/row_buffer.h"

#include <algorithm>

#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::quantize {
namespace {

constexpr std::uint16_t kLargestHalf = 0x7bff;  // 65504

// sign bit: never set by a search
float finite_half(std::uint16_t bits) { return gguf::half_to_float(std::min(bits, kLargestHalf)); }

}  // namespace

RowBuffer::RowBuffer(std::int64_t cols, bool factored)
    : m_(cols),
      value_(cols),
      code_(cols),
      d_(cols / kSuper),
      dmin_(cols / kSuper),
      scale_(cols / kBlock),
      min_(cols / kBlock),
      blocks_(factored ? cols / kBlock : 0) {}

void RowBuffer::load(const Q4KMatrix& matrix, std::int64_t r) {
  const std::int64_t cols = matrix.cols;
  std::copy_n(matrix.code.begin() + r * cols, cols, code_.begin());
  std::copy_n(matrix.scale.begin() + r * scale_.size(), scale_.size(), scale_.begin());
  std::copy_n(matrix.min.begin() + r * min_.size(), min_.size(), min_.begin());
  for (std::size_t s = 0; s < d_.size(); ++s) {
    d_[s] = finite_half(matrix.d[r * d_.size() + s]);
    dmin_[s] = finite_half(matrix.dmin[r * d_.size() + s]);
  }
  RowWork row = work();
  decode_row(row, cols);
}

void RowBuffer::store(Q4KMatrix& matrix, std::int64_t r) const {
  const std::int64_t cols = matrix.cols;
  std::transform(code_.begin(), code_.end(), matrix.code.begin() + r * cols,
                 [](float q) { return static_cast<std::uint8_t>(q); });
  std::copy(scale_.begin(), scale_.end(), matrix.scale.begin() + r * scale_.size());
  std::copy(min_.begin(), min_.end(), matrix.min.begin() + r * min_.size());
  for (std::size_t s = 0; s < d_.size(); ++s) {
    matrix.d[r * d_.size() + s] = gguf::float_to_half(d_[s]);
    matrix.dmin[r * d_.size() + s] = gguf::float_to_half(dmin_[s]);
  }
}

RowWork RowBuffer::work() {
  RowWork row;
  row.m = m_.data();
  row.value = value_.data();
  row.code = code_.data();
  row.scale = scale_.data();
  row.min = min_.data();
  row.d = d_.data();
  row.dmin = dmin_.data();
  row.blocks = blocks_.empty() ? nullptr : blocks_.data();
  return row;
}

}  // namespace spectralquant::quantize
