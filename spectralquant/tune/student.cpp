#include "spectralquant/tune/student.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "spectralquant/format/formats.h"
#include "spectralquant/gguf/strict.h"
#include "spectralquant/model/decode.h"
#include "spectralquant/quantize/grid_tensors.h"
#include "spectralquant/tune/schedule.h"

namespace spectralquant::tune {
namespace {

/// Rates of a tensor are in shares of its root mean square; one of zeros still has to get away from
/// there.
constexpr double kSmallestUnit = 1e-3;

/// Super-scales are few and each moves 256 weights: their denominators are all but equal.
const AdamOptions kSuperScaleAdam{0.9, 0.98, 1.0};

std::vector<std::byte> bytes_of(const void* data, std::size_t size_bytes) {
  std::vector<std::byte> out(size_bytes);
  std::memcpy(out.data(), data, size_bytes);
  return out;
}

torch::Tensor half_of(const torch::Tensor& base, const torch::Tensor& change) {
  return quantize::round_to_half(base * (1 + change).clamp_min_(0));
}

format::GridMatrix solved_matrix(const gguf::Matrix& matrix, const format::Grid& grid) {
  const std::byte* data = matrix.tensor->data + matrix.first_row() * matrix.tensor->row_bytes();
  return format::GridMatrix::from_bytes(grid, data, matrix.rows(), matrix.cols());
}

double root_mean_square(const torch::Tensor& x) {
  return std::max(kSmallestUnit, x.square().mean().sqrt().item<double>());
}

}  // namespace

void add_up(std::vector<torch::Tensor>& sums, const std::vector<torch::Tensor>& part) {
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (!part[i].defined()) continue;
    if (sums[i].defined()) {
      sums[i].add_(part[i]);
    } else {
      sums[i] = part[i].to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
    }
  }
}

torch::Tensor Student::Vector::value() const {
  return negative_exponential ? parameter.value.exp().neg_() : parameter.value;
}

Student::Student(const gguf::File& original, const gguf::File& solved, Start start,
                 torch::Device device)
    : device_(device) {
  torch::NoGradGuard no_grad;
  const auto architecture = model::make_architecture(original);
  const auto multiplied = model::multiplied_weights(*architecture);
  std::set<gguf::MatrixId> read(multiplied.begin(), multiplied.end());
  read.insert(architecture->embedding_name());
  for (const gguf::Tensor& tensor : solved.tensors()) {
    const bool matrix = gguf::is_matrix_to_quantize(solved.architecture(), tensor);
    const format::Grid* grid = format::find_grid(tensor.type);
    const auto matrices = gguf::matrices_of(original.require(tensor.name));
    if (grid != nullptr && read.contains(matrices.front().id())) {
      const auto solved_matrices = gguf::matrices_of(tensor);
      for (std::size_t i = 0; i < matrices.size(); ++i) {
        add_matrix(matrices[i].id(), *grid, model::decode(matrices[i]).to(device));
        if (start == Start::kSolved)
          matrices_.back().grid.stand_on(solved_matrix(solved_matrices[i], *grid));
      }
    } else if (tensor.type == gguf::Type::F32 && !matrix) {
      add_vector(tensor.name, model::decode(original.require(tensor.name)).to(device));
    } else if (gguf::traits(tensor.type).decodable) {
      untouched_.push_back(&tensor);
    }
  }
  for (const Entry& entry : entries_) ids_.push_back(entry.id);
}

void Student::add_matrix(const gguf::MatrixId& id, const format::Grid& grid, torch::Tensor weight) {
  entries_.push_back({id, matrices_.size(), true});
  Matrix matrix;
  matrix.root_mean_square = root_mean_square(weight);
  matrix.grid = quantize::PartialMatrix(grid, weight);
  matrix.weight.value = weight;
  matrix.weight.unit = torch::full({1, weight.size(1)}, matrix.root_mean_square, weight.options());
  matrices_.push_back(std::move(matrix));
  leaves_.push_back(weight.requires_grad_(true));
}

void Student::add_vector(const std::string& name, const torch::Tensor& value) {
  entries_.push_back({name, vectors_.size(), false});
  Vector vector;
  vector.negative_exponential = value.max().item<float>() < 0;
  const torch::Tensor learned = vector.negative_exponential ? value.neg().log() : value.clone();
  vector.parameter = Parameter(
      learned, torch::full({1}, root_mean_square(learned), learned.options()).expand_as(learned));
  leaves_.push_back(vector.value().clone().requires_grad_(true));
  vectors_.push_back(std::move(vector));
}

void Student::put_into(model::Model& model) const {
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < entries_.size(); ++i) model.weights().set(ids_[i], leaves_[i]);
  for (const gguf::Tensor* tensor : untouched_)
    model.weights().set(tensor->name, model::decode(*tensor).to(device_));
}

quantize::PartialMatrix* Student::matrix(const gguf::MatrixId& id) {
  for (const Entry& entry : entries_) {
    if (entry.is_matrix && entry.id == id) return &matrices_[entry.index].grid;
  }
  return nullptr;
}

void Student::set_free(const model::Readers& readers, const Stage& stage,
                       const quantize::ColumnMoments& moments,
                       const quantize::FixOptions& options) {
  std::vector<Matrix*> matrices;
  for (const Entry& entry : entries_) {
    if (entry.is_matrix && std::find(readers.begin(), readers.end(), entry.id) != readers.end())
      matrices.push_back(&matrices_[entry.index]);
  }
  if (matrices.empty()) return;
  if (!matrices.front()->order.defined()) {
    const torch::Tensor order =
        torch::tensor(quantize::column_order(moments.h)).to(device_, torch::kInt32);
    for (Matrix* matrix : matrices) matrix->order = order;
  }
  const torch::Tensor order = matrices.front()->order.to(torch::kCPU, torch::kInt64);
  const torch::Tensor fixed =
      matrices.front()->grid.fixed.to(torch::kCPU).index_select(0, order).contiguous();
  const auto* column = order.data_ptr<std::int64_t>();
  const auto* is_fixed = fixed.data_ptr<std::int8_t>();
  const std::int64_t n = order.size(0), first = columns_of(stage.from, n),
                     last = columns_of(stage.to, n);
  std::vector<std::int64_t> to_free, to_fix;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool free = first <= i && i < last;
    if (free == (is_fixed[i] == 0)) continue;
    (free ? to_free : to_fix).push_back(column[i]);
  }
  std::vector<quantize::PartialMatrix*> grids;
  for (Matrix* matrix : matrices) {
    matrix->grid.release(to_free);
    grids.push_back(&matrix->grid);
  }
  if (!to_fix.empty()) quantize::fix_columns(grids, to_fix, moments, options);
}

void Student::begin_stage() {
  torch::NoGradGuard no_grad;
  for (Matrix& matrix : matrices_) {
    matrix.d0 = matrix.grid.d.clone();
    matrix.dmin0 = matrix.grid.dmin.clone();
    matrix.d = Parameter(torch::zeros_like(matrix.d0));
    matrix.dmin = Parameter(torch::zeros_like(matrix.d0));
  }
  restored();
}

void Student::restored() {
  torch::NoGradGuard no_grad;
  for (Matrix& matrix : matrices_) {
    matrix.weight.unit.copy_(
        (1 - matrix.grid.fixed.to(torch::kFloat32)).unsqueeze(0).mul_(matrix.root_mean_square));
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].is_matrix) leaves_[i].copy_(vectors_[entries_[i].index].value());
  }
}

void Student::update(const std::vector<torch::Tensor>& gradients, const Rates& rates,
                     std::int64_t step, std::int64_t stage_step) {
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!gradients[i].defined()) continue;
    if (entries_[i].is_matrix) {
      Matrix& matrix = matrices_[entries_[i].index];
      if (rates.weights > 0)
        adam_step(matrix.weight, gradients[i], rates.weights, step, AdamOptions{});
      update_super_scales(matrix, gradients[i], rates.super_scales, stage_step);
    } else {
      Vector& vector = vectors_[entries_[i].index];
      const torch::Tensor gradient =
          vector.negative_exponential ? gradients[i] * leaves_[i] : gradients[i];
      adam_step(vector.parameter, gradient, rates.vectors, step, AdamOptions{});
      leaves_[i].copy_(vector.value());
    }
  }
}

/// Of value = d·scale·code − dmin·min over the fixed columns of a super-block; codes of the others
/// are 0.
void Student::update_super_scales(Matrix& matrix, const torch::Tensor& gradient, double rate,
                                  std::int64_t stage_step) {
  quantize::PartialMatrix& grid = matrix.grid;
  const std::int64_t rows = grid.rows(), supers = grid.d.size(1), blocks = grid.scale.size(1);
  const torch::Tensor by_block = gradient.view({rows, blocks, -1});
  const auto by_super = [&](const torch::Tensor& of_block, const torch::Tensor& factor) {
    return (of_block * factor).view({rows, supers, -1}).sum(-1);
  };
  const torch::Tensor codes = (by_block * grid.levels().view(by_block.sizes())).sum(-1),
                      ones = (by_block * grid.fixed.view({1, blocks, -1})).sum(-1);
  adam_step(matrix.d, by_super(codes, grid.scale).mul_(matrix.d0), rate, stage_step,
            kSuperScaleAdam);
  grid.d = half_of(matrix.d0, matrix.d.value);
  if (grid.grid->has_min()) {
    adam_step(matrix.dmin, by_super(ones, grid.min).mul_(matrix.dmin0).neg_(), rate, stage_step,
              kSuperScaleAdam);
    grid.dmin = half_of(matrix.dmin0, matrix.dmin.value);
  }
  grid.put_decoded();
}

TensorBytes Student::pack() const {
  TensorBytes out;
  for (const Entry& entry : entries_) {
    if (entry.is_matrix) {
      // slices of a stack follow one another
      const auto bytes = matrices_[entry.index].grid.matrix().to_bytes(at::get_num_threads());
      std::vector<std::byte>& tensor = out[entry.id.tensor];
      tensor.insert(tensor.end(), bytes.begin(), bytes.end());
    } else {
      const torch::Tensor values = vectors_[entry.index].value().to(torch::kCPU).contiguous();
      out[entry.id.tensor] = bytes_of(values.data_ptr<float>(),
                                      static_cast<std::size_t>(values.numel()) * sizeof(float));
    }
  }
  return out;
}

void Student::visit_state(const std::function<void(const std::string&, torch::Tensor&)>& see) {
  const auto see_parameter = [&](const std::string& name, Parameter& parameter) {
    see(name, parameter.value);
    see(name + ":mean", parameter.mean);
    see(name + ":square", parameter.square);
  };
  for (const Entry& entry : entries_) {
    const std::string name = entry.id.text();
    if (!entry.is_matrix) {
      see_parameter(name, vectors_[entry.index].parameter);
      continue;
    }
    Matrix& matrix = matrices_[entry.index];
    see_parameter(name, matrix.weight);
    see_parameter(name + ":d_change", matrix.d);
    see_parameter(name + ":dmin_change", matrix.dmin);
    const std::pair<const char*, torch::Tensor*> parts[] = {
        {":code", &matrix.grid.code}, {":scale", &matrix.grid.scale},
        {":min", &matrix.grid.min},   {":d", &matrix.grid.d},
        {":dmin", &matrix.grid.dmin}, {":fixed", &matrix.grid.fixed},
        {":d_start", &matrix.d0},     {":dmin_start", &matrix.dmin0},
        {":order", &matrix.order}};
    for (const auto& [part, tensor] : parts) see(name + part, *tensor);
  }
}

void put_packed(const TensorBytes& packed, const gguf::File& solved, model::Model& model) {
  for (const auto& [name, bytes] : packed) {
    gguf::Tensor tensor = solved.require(name);
    tensor.data = bytes.data();
    model.weights().set(name, model::decode(tensor).to(model.device()));
  }
}

}  // namespace spectralquant::tune
