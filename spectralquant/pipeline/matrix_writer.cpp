#include "spectralquant/pipeline/matrix_writer.h"

#include <algorithm>

#include "spectralquant/pipeline/encode.h"

namespace spectralquant::pipeline {
namespace {

/// Values converted at once.
constexpr std::uint64_t kChunkValues = std::uint64_t{1} << 24;

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
  out.alignment = input.alignment();
  return out;
}

}  // namespace

torch::Tensor decode_rows(const gguf::Tensor& tensor, std::uint64_t first_row,
                          std::uint64_t n_rows) {
  torch::Tensor out =
      torch::empty({static_cast<std::int64_t>(n_rows), static_cast<std::int64_t>(tensor.n_cols())},
                   torch::kFloat32);
  gguf::decode(tensor, first_row, n_rows, out.data_ptr<float>());
  return out;
}

MatrixWriter::MatrixWriter(const gguf::File& input, const quantize::Plan& plan,
                           const gguf::Metadata& metadata, const QuantizeOptions& options)
    : plan_(plan) {
  if (!options.output.empty())
    writer_.emplace(options.output, metadata, output_tensors(plan), write_options(input, options),
                    input.paths());
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    if (plan.tensors[i].action != quantize::Action::kSolve) continue;
    matrices_.push_back(plan.tensors[i].source);
    index_[plan.tensors[i].source->name] = i;
  }
}

const gguf::Tensor* MatrixWriter::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : plan_.tensors[it->second].source;
}

bool MatrixWriter::has(std::string_view name) const {
  return written_.find(name) != written_.end();
}

const format::Grid& MatrixWriter::grid_of(std::string_view name) const {
  return format::grid_of(plan_.tensors[index_.find(name)->second].type);
}

void MatrixWriter::write(const gguf::Tensor& source, std::uint64_t first_row,
                         const format::GridMatrix& rows) {
  written_[source.name] = true;
  if (!writer_) return;
  if (rows.rows == 0) return;
  const std::vector<std::byte> bytes = rows.to_bytes();
  const std::uint64_t row_bytes = bytes.size() / static_cast<std::uint64_t>(rows.rows);
  writer_->write(index_.find(source.name)->second, first_row * row_bytes, bytes.data(),
                 bytes.size());
}

void MatrixWriter::commit() {
  if (writer_) writer_->commit();
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
    const std::uint64_t step = std::max<std::uint64_t>(1, kChunkValues / source->n_cols());
    std::uint64_t offset = 0;
    for (std::uint64_t row = 0; row < source->n_rows(); row += step) {
      const torch::Tensor values =
          decode_rows(*source, row, std::min(step, source->n_rows() - row));
      const auto bytes =
          encode(type, values.data_ptr<float>(), static_cast<std::size_t>(values.numel()));
      writer_->write(i, offset, bytes.data(), bytes.size());
      offset += bytes.size();
    }
  }
}

}  // namespace spectralquant::pipeline
