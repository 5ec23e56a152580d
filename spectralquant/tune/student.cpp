#include "spectralquant/tune/student.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "spectralquant/gguf/strict.h"

namespace spectralquant::tune {
namespace {

/// Rates of a vector are in shares of its root mean square; one of zeros still has to get away from
/// there.
constexpr double kSmallestUnit = 1e-3;

format::GridMatrix read_matrix(const gguf::Tensor& tensor) {
  return format::GridMatrix::from_bytes(format::Q4_K::kGrid, tensor.data,
                                        static_cast<std::int64_t>(tensor.n_rows()),
                                        static_cast<std::int64_t>(tensor.n_cols()));
}

std::vector<std::byte> bytes_of(const void* data, std::size_t size_bytes) {
  std::vector<std::byte> out(size_bytes);
  std::memcpy(out.data(), data, size_bytes);
  return out;
}

}  // namespace

void add_up(std::vector<torch::Tensor>& sums, const std::vector<torch::Tensor>& part) {
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (!part[i].defined()) continue;
    if (sums[i].defined()) {
      sums[i].add_(part[i]);
    } else {
      sums[i] = part[i];
    }
  }
}

torch::Tensor decode(const gguf::Tensor& tensor) {
  std::vector<std::int64_t> shape(tensor.shape.begin(),
                                  tensor.shape.begin() + std::max(1u, tensor.n_dims));
  std::reverse(shape.begin(), shape.end());
  torch::Tensor out = torch::empty(shape, torch::kFloat32);
  gguf::decode(tensor, 0, tensor.n_rows(), out.data_ptr<float>());
  return out;
}

Student::Student(const gguf::File& original, const gguf::File& solved, double clip,
                 torch::Device device, std::string_view prefix)
    : device_(device) {
  torch::NoGradGuard no_grad;
  for (const gguf::Tensor& tensor : solved.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    const bool matrix = gguf::is_matrix_to_quantize(solved.architecture(), tensor);
    if (tensor.type == gguf::Type::Q4_K) {
      entries_.push_back({tensor.name, matrices_.size(), true});
      matrices_.emplace_back(decode(original.require(tensor.name)), read_matrix(tensor), clip,
                             device);
    } else if (tensor.type == gguf::Type::F32 && !matrix) {
      const torch::Tensor value = decode(tensor).to(device);
      entries_.push_back({tensor.name, vectors_.size(), false});
      vectors_.emplace_back(
          value, value.square().mean().sqrt_().clamp_min_(kSmallestUnit).expand_as(value));
    } else if (gguf::traits(tensor.type).decodable) {
      fixed_.push_back(&tensor);
    }
  }
  for (const Entry& entry : entries_) names_.push_back(entry.name);
}

void Student::put_into(model::Model& model) {
  torch::NoGradGuard no_grad;
  leaves_.clear();
  for (const Entry& entry : entries_) {
    torch::Tensor leaf =
        entry.is_matrix ? matrices_[entry.index].decode() : vectors_[entry.index].value.clone();
    leaves_.push_back(leaf.requires_grad_(true));
    model.weights().set(entry.name, leaf);
  }
  for (const gguf::Tensor* tensor : fixed_)
    model.weights().set(tensor->name, decode(*tensor).to(device_));
  fixed_.clear();  // they never change
}

void Student::update(std::vector<torch::Tensor> gradients, const Rates& rates, std::int64_t step,
                     const AdamOptions& options) {
  leaves_.clear();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!gradients[i].defined()) continue;
    if (entries_[i].is_matrix) {
      LatentMatrix& matrix = matrices_[entries_[i].index];
      matrix.pull_back(std::move(gradients[i]));
      matrix.update(rates, step, options);
    } else {
      Parameter& vector = vectors_[entries_[i].index];
      vector.gradient = std::move(gradients[i]);
      adam_step(vector, rates.free, step, options);
    }
    gradients[i].reset();
  }
}

TensorBytes Student::pack() const {
  TensorBytes out;
  for (const Entry& entry : entries_) {
    if (entry.is_matrix) {
      out[entry.name] = matrices_[entry.index].pack().to_bytes(at::get_num_threads());
    } else {
      const torch::Tensor values = vectors_[entry.index].value.to(torch::kCPU).contiguous();
      out[entry.name] = bytes_of(values.data_ptr<float>(),
                                 static_cast<std::size_t>(values.numel()) * sizeof(float));
    }
  }
  return out;
}

std::vector<std::pair<std::string, Parameter*>> Student::state() {
  std::vector<std::pair<std::string, Parameter*>> out;
  for (const Entry& entry : entries_) {
    if (!entry.is_matrix) {
      out.emplace_back(entry.name, &vectors_[entry.index]);
      continue;
    }
    LatentMatrix& matrix = matrices_[entry.index];
    out.emplace_back(entry.name + ":codes", &matrix.weight);
    out.emplace_back(entry.name + ":scale", &matrix.scale);
    out.emplace_back(entry.name + ":min", &matrix.min);
    out.emplace_back(entry.name + ":d", &matrix.d);
    out.emplace_back(entry.name + ":dmin", &matrix.dmin);
  }
  return out;
}

void put_packed(const TensorBytes& packed, const gguf::File& solved, model::Model& model) {
  for (const auto& [name, bytes] : packed) {
    gguf::Tensor tensor = solved.require(name);
    tensor.data = bytes.data();
    model.weights().set(name, decode(tensor).to(model.device()));
  }
}

}  // namespace spectralquant::tune
