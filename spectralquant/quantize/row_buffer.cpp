#include "spectralquant/quantize/row_buffer.h"

#include <algorithm>

#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::quantize {
namespace {

constexpr std::uint16_t kSign = 0x8000, kLargestBits = 0x7bff;  // 65504

/// NaN and infinity come as the largest finite number.
float finite_half(std::uint16_t bits) {
  const auto magnitude = static_cast<std::uint16_t>(bits & ~kSign);
  return gguf::half_to_float(
      static_cast<std::uint16_t>((bits & kSign) | std::min(magnitude, kLargestBits)));
}

}  // namespace

template <class F>
RowBuffer<F>::RowBuffer(std::int64_t cols, bool factored)
    : m_(cols),
      value_(cols),
      code_(cols),
      d_(cols / F::kSuper),
      dmin_(cols / F::kSuper),
      scale_(cols / F::kBlock),
      min_(cols / F::kBlock),
      blocks_(factored ? cols / F::kBlock : 0) {}

template <class F>
void RowBuffer<F>::load(const format::GridMatrix& matrix, std::int64_t r) {
  const std::int64_t cols = matrix.cols;
  const auto codes = matrix.codes.begin() + r * cols;
  if constexpr (F::kHasLevels) {
    std::transform(codes, codes + cols, code_.begin(),
                   [&](std::int8_t code) { return static_cast<float>(matrix.grid->level(code)); });
  } else {
    std::copy_n(codes, cols, code_.begin());
  }
  std::copy_n(matrix.scales.begin() + r * scale_.size(), scale_.size(), scale_.begin());
  if constexpr (F::kHasMin)
    std::copy_n(matrix.mins.begin() + r * min_.size(), min_.size(), min_.begin());
  for (std::size_t s = 0; s < d_.size(); ++s) {
    d_[s] = finite_half(matrix.d[r * d_.size() + s]);
    if constexpr (F::kHasMin) dmin_[s] = finite_half(matrix.dmin[r * d_.size() + s]);
  }
  RowWork<F> row = work();
  decode_row(row, cols);
}

template <class F>
void RowBuffer<F>::store(format::GridMatrix& matrix, std::int64_t r) const {
  const std::int64_t cols = matrix.cols;
  std::transform(code_.begin(), code_.end(), matrix.codes.begin() + r * cols, [&](float q) {
    const auto number = static_cast<std::int8_t>(q);
    if constexpr (!F::kHasLevels) return number;
    const std::int8_t* levels = matrix.grid->levels;
    return static_cast<std::int8_t>(std::lower_bound(levels, levels + kLevels, number) - levels +
                                    matrix.grid->code.lowest);
  });
  std::copy(scale_.begin(), scale_.end(), matrix.scales.begin() + r * scale_.size());
  if constexpr (F::kHasMin)
    std::copy(min_.begin(), min_.end(), matrix.mins.begin() + r * min_.size());
  for (std::size_t s = 0; s < d_.size(); ++s) {
    matrix.d[r * d_.size() + s] = gguf::float_to_half(d_[s]);
    if constexpr (F::kHasMin) matrix.dmin[r * d_.size() + s] = gguf::float_to_half(dmin_[s]);
  }
}

template <class F>
RowWork<F> RowBuffer<F>::work() {
  RowWork<F> row;
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

#define SQ_INSTANTIATE(name) template class RowBuffer<ShapedAs<format::name>>;
SPECTRALQUANT_SHAPES(SQ_INSTANTIATE)

}  // namespace spectralquant::quantize
