#include "spectralquant/gguf/matrix.h"

#include <charconv>

#include "spectralquant/core/error.h"

namespace spectralquant::gguf {
namespace {

std::int64_t n_slices(const Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.shape[2] * tensor.shape[3]);
}

}  // namespace

std::string MatrixId::text() const {
  return slice == kWhole ? tensor : tensor + "[" + std::to_string(slice) + "]";
}

MatrixId MatrixId::parse(std::string_view text) {
  const auto open = text.rfind('[');
  std::int64_t slice = kWhole;
  if (open != std::string_view::npos && text.ends_with(']')) {
    const char *first = text.data() + open + 1, *last = text.data() + text.size() - 1;
    const auto [end, error] = std::from_chars(first, last, slice);
    if (error == std::errc() && end == last && slice >= 0)
      return {std::string(text.substr(0, open)), slice};
  }
  return {std::string(text)};
}

std::int64_t Matrix::rows() const {
  return static_cast<std::int64_t>(slice == MatrixId::kWhole ? tensor->n_rows() : tensor->shape[1]);
}

std::uint64_t Matrix::first_row() const {
  return slice == MatrixId::kWhole ? 0 : static_cast<std::uint64_t>(slice) * tensor->shape[1];
}

std::vector<Matrix> matrices_of(const Tensor& tensor) {
  const std::int64_t n = n_slices(tensor);
  if (n == 1) return {{&tensor}};
  std::vector<Matrix> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back({&tensor, i});
  return out;
}

Matrix require_matrix(const File& file, const MatrixId& id) {
  const Tensor& tensor = file.require(id.tensor);
  const std::int64_t n = n_slices(tensor);
  const bool known = n == 1 ? id.slice == MatrixId::kWhole : id.slice >= 0 && id.slice < n;
  if (known) return {&tensor, id.slice};
  throw bad_input(
      "there is no matrix " + id.text() + ": the tensor has shape " + tensor.shape_text(),
      file.path());
}

}  // namespace spectralquant::gguf
