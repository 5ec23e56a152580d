#include "spectralquant/pipeline/matrix_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/header.h"
#include "spectralquant/gguf/scan.h"
#include "spectralquant/pipeline/checks.h"
#include "spectralquant/pipeline/encode.h"

namespace spectralquant::pipeline {
namespace {

std::vector<gguf::TensorPlan> output_tensors(const quantize::Plan& plan) {
  std::vector<gguf::TensorPlan> out;
  for (const auto& planned : plan.tensors)
    out.push_back(
        {planned.source->name, planned.type, planned.source->n_dims, planned.source->shape});
  return out;
}

gguf::WriteOptions write_options(const gguf::File& input, const QuantizeOptions& options) {
  gguf::WriteOptions out;
  out.overwrite = options.overwrite;
  out.alignment = std::max(input.alignment(), gguf::kDefaultAlignment);  // llama.cpp maps the data
  return out;
}

}  // namespace

void require_finite_rows(const gguf::Tensor& source, std::uint64_t first_row,
                         const gguf::Tensor& rounded, const std::string& file_path) {
  const gguf::ValueScan scan = gguf::scan_values(rounded);
  if (scan.n_not_finite == 0) return;
  const std::uint64_t cols = source.n_cols(), row = scan.first / cols, column = scan.first % cols;
  std::vector<float> values(cols);
  gguf::decode(source, first_row + row, 1, values.data());
  const std::uint64_t block = gguf::traits(rounded.type).block_values;
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(column / block * block);
  const auto largest =
      std::max_element(begin, begin + static_cast<std::ptrdiff_t>(block),
                       [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  throw bad_input(
      fmt::format("{} cannot be rounded to {}: {} at row {}, column {}; the largest weight of its "
                  "block is {:g} at column {}",
                  source.name, gguf::traits(rounded.type).name,
                  scan.first_is_nan ? "NaN" : "an infinity", first_row + row, column, *largest,
                  largest - values.begin()),
      fmt::format("{}, {} {} {}", file_path, source.name, gguf::traits(source.type).name,
                  source.shape_text()),
      "--method spectral keeps scales in range; or look for the weight, or the importance, that "
      "is out of range");
}

MatrixWriter::MatrixWriter(const gguf::File& input, const quantize::Plan& plan,
                           const gguf::Metadata& metadata, const QuantizeOptions& options)
    : plan_(plan), input_path_(input.path()) {
  if (!options.output.empty())
    writer_.emplace(options.output, metadata, output_tensors(plan), write_options(input, options),
                    input.paths());
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    if (plan.tensors[i].action != quantize::Action::kSolve) continue;
    const auto matrices = gguf::matrices_of(*plan.tensors[i].source);
    matrices_.insert(matrices_.end(), matrices.begin(), matrices.end());
    index_[plan.tensors[i].source->name] = i;
  }
}

std::optional<gguf::Matrix> MatrixWriter::find(const gguf::MatrixId& id) const {
  const auto it = index_.find(id.tensor);
  if (it == index_.end()) return std::nullopt;
  return gguf::Matrix{plan_.tensors[it->second].source, id.slice};
}

bool MatrixWriter::has(const gguf::MatrixId& id) const { return written_.contains(id); }

const format::Grid& MatrixWriter::grid_of(std::string_view tensor) const {
  return format::grid_of(plan_.tensors[index_.find(tensor)->second].type);
}

void MatrixWriter::write(const gguf::Matrix& matrix, std::int64_t first_row_of_matrix,
                         const format::GridMatrix& rows) {
  written_.insert(matrix.id());
  if (rows.rows == 0) return;
  const gguf::Tensor& source = *matrix.tensor;
  const std::uint64_t first_row =
      matrix.first_row() + static_cast<std::uint64_t>(first_row_of_matrix);
  const std::vector<std::byte> bytes = rows.to_bytes();
  const gguf::Tensor rounded{source.name,
                             plan_.tensors[index_.find(source.name)->second].type,
                             2,
                             {source.n_cols(), static_cast<std::uint64_t>(rows.rows), 1, 1},
                             bytes.data(),
                             bytes.size()};
  require_finite_rows(source, first_row, rounded, input_path_);
  if (!writer_) return;
  const std::uint64_t row_bytes = bytes.size() / static_cast<std::uint64_t>(rows.rows);
  writer_->write(index_.find(source.name)->second, first_row * row_bytes, bytes.data(),
                 bytes.size());
}

void MatrixWriter::commit() {
  if (writer_) writer_->commit(require_all_finite);
}

void MatrixWriter::write_rest() {
  if (!writer_) return;
  for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
    const auto& [source, action, type] = plan_.tensors[i];
    if (action == quantize::Action::kSolve) continue;
    if (type == source->type) {
      writer_->write(i, 0, source->data, source->size_bytes);
      continue;
    }
    encode_tensor(*source, type, input_path_,
                  [&](std::uint64_t offset, const std::vector<std::byte>& bytes) {
                    writer_->write(i, offset, bytes.data(), bytes.size());
                  });
  }
}

}  // namespace spectralquant::pipeline
