#include "spectralquant/model/model.h"

#include <fmt/format.h>
#include <torch/cuda.h>

#include <algorithm>
#include <optional>

#include "spectralquant/core/error.h"

namespace spectralquant::model {
namespace {

ModelOptions checked(ModelOptions options) {
  if (options.dtype != torch::kFloat32 && options.dtype != torch::kBFloat16) {
    throw Error(ErrorCode::kBadUsage,
                fmt::format("compute type {} is not supported", c10::toString(options.dtype)), {},
                "use float32 or bfloat16");
  }
  if (options.device.is_cuda() && !torch::cuda::is_available()) {
    throw Error(ErrorCode::kFailed, "no CUDA device can be used", {},
                "run with --device cpu, or use a libtorch built for CUDA and a GPU");
  }
  return options;
}

}  // namespace

torch::Device parse_device(const std::string& name) {
  const auto refuse = [](const std::string& problem, const std::string& fix) {
    throw Error(ErrorCode::kBadUsage, problem, "--device", fix);
  };
  std::optional<torch::Device> device;
  try {
    device.emplace(name);
  } catch (const c10::Error&) {  // refused below
  }
  if (!device || !(device->is_cpu() || device->is_cuda()))
    refuse(fmt::format("unknown device \"{}\"", name), "use cpu, cuda or cuda:1");
  if (device->is_cpu()) return torch::kCPU;
  if (!torch::cuda::is_available())
    refuse("this build or this machine has no CUDA device", "use the device cpu");
  const auto n_devices = static_cast<int>(torch::cuda::device_count());
  if (device->has_index() && device->index() >= n_devices) {
    refuse(fmt::format("there is no device {}: this machine has {}", name, n_devices),
           fmt::format("use cuda:0{}",
                       n_devices > 1 ? fmt::format(" to cuda:{}", n_devices - 1) : std::string()));
  }
  return *device;
}

torch::Tensor BlockState::append(const std::string& name, const torch::Tensor& rows) {
  auto& buffer = tensors[name];
  const auto needed = n_past + rows.size(2);
  const auto capacity = buffer.defined() ? buffer.size(2) : 0;
  if (needed > capacity) {  // doubling: copying costs less than a constant per token in the end
    auto larger = torch::empty(
        {rows.size(0), rows.size(1),
         std::max<std::int64_t>(needed, std::max<std::int64_t>(64, 2 * capacity)), rows.size(3)},
        rows.options());
    if (n_past > 0) larger.narrow(2, 0, n_past).copy_(buffer.narrow(2, 0, n_past));
    buffer = larger;
  }
  buffer.narrow(2, n_past, rows.size(2)).copy_(rows.detach());
  return buffer.narrow(2, 0, needed);
}

torch::Tensor Pass::linear(const MatrixId& matrix, const torch::Tensor& x) const {
  if (stop_at && matrix == *stop_at) throw Stopped{{x}};
  const auto y = torch::linear(x, weights.get(matrix).to(x.scalar_type()));
  if (tap && *tap) (*tap)(matrix, x, y);
  return y;
}

std::vector<torch::Tensor> Pass::linear_each(const std::vector<MatrixId>& matrices,
                                             const std::vector<torch::Tensor>& xs) const {
  if (stop_at && matrices.front() == *stop_at) throw Stopped{xs};
  std::vector<torch::Tensor> ys;
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    if (xs[i].size(0) > 0) {
      ys.push_back(linear(matrices[i], xs[i]));
    } else {
      const auto rows = gguf::require_matrix(weights.file(), matrices[i]).rows();
      ys.push_back(torch::empty({0, rows}, xs[i].options()));
    }
  }
  return ys;
}

Model::Model(const gguf::File& file, ModelOptions options)
    : options_(checked(options)),
      weights_(file, options_.device, options_.dtype),
      architecture_(make_architecture(file)) {}

torch::Tensor Model::forward(const torch::Tensor& tokens, const Tap* tap) {
  auto x = embed(tokens);
  for (std::int64_t i = 0; i < architecture_->n_blocks(); ++i) x = block(i, x, tap);
  return head(final_norm(x), tap);
}

torch::Tensor Model::embed(const torch::Tensor& tokens) {
  if (tokens.dim() != 2 || tokens.scalar_type() != torch::kInt64 || tokens.numel() == 0) {
    throw bad_input(
        fmt::format("tokens must be int64 [sequences, tokens], not {} with {} dimensions",
                    c10::toString(tokens.scalar_type()), tokens.dim()));
  }
  // Only where it is free: on a GPU the check would make the host wait for the device.
  if (tokens.device().is_cpu()) {
    const auto lowest = tokens.min().item<std::int64_t>(),
               highest = tokens.max().item<std::int64_t>();
    const auto vocab_size = architecture_->vocab_size();
    if (lowest < 0 || highest >= vocab_size) {
      throw bad_input(fmt::format("token {} is outside the vocabulary of {}",
                                  lowest < 0 ? lowest : highest, vocab_size),
                      weights_.file().path(), "the text was tokenized for another model");
    }
  }
  return architecture_->embed(tokens.to(options_.device), Pass{weights_});
}

torch::Tensor Model::block(std::int64_t index, const torch::Tensor& x, const Tap* tap,
                           BlockState* state) {
  const Pass pass{weights_, tap, state};
  torch::Tensor y = x;
  for (std::size_t i = 0; i < architecture_->parts(index).size(); ++i)
    y = architecture_->part(index, i, y, pass);
  return y;
}

torch::Tensor Model::part(std::int64_t block, std::size_t index, const torch::Tensor& x,
                          const Tap* tap, Routing* routing) {
  return architecture_->part(block, index, x, Pass{weights_, tap, nullptr, nullptr, routing});
}

std::vector<torch::Tensor> Model::inputs_of(const Stage& stage, std::int64_t block,
                                            std::size_t index, const torch::Tensor& x,
                                            Routing* routing) {
  const MatrixId& first = stage.front().front();
  try {
    architecture_->part(block, index, x, Pass{weights_, nullptr, nullptr, &first, routing});
  } catch (Stopped& stopped) {
    return std::move(stopped.inputs);
  }
  throw bad_input(fmt::format("part {} of block {} never reads {}", index, block, first.text()),
                  weights_.file().path());
}

torch::Tensor Model::draft_input(std::int64_t block, const torch::Tensor& tokens,
                                 const torch::Tensor& hidden) {
  return architecture_->draft_input(block, tokens.to(options_.device), hidden, Pass{weights_});
}

torch::Tensor Model::final_norm(const torch::Tensor& x) {
  return architecture_->final_norm(x, Pass{weights_});
}

torch::Tensor Model::head(const torch::Tensor& hidden, const Tap* tap) {
  return Pass{weights_, tap}.linear(architecture_->head_name(), hidden);
}

torch::Tensor to_tensor(const std::vector<std::vector<std::int32_t>>& windows, std::size_t first,
                        std::size_t count, torch::Device device) {
  if (count == 0 || first + count > windows.size()) {
    throw bad_input(
        fmt::format("windows {} to {} of {} were asked for", first, first + count, windows.size()));
  }
  const auto length = windows[first].size();
  auto tokens = torch::empty({static_cast<std::int64_t>(count), static_cast<std::int64_t>(length)},
                             torch::kInt64);
  auto* out = tokens.data_ptr<std::int64_t>();
  for (std::size_t i = first; i < first + count; ++i) {
    if (windows[i].size() != length) {
      throw bad_input(
          fmt::format("window {} has {} tokens, window {} has {}: one batch needs equal lengths", i,
                      windows[i].size(), first, length));
    }
    out = std::copy(windows[i].begin(), windows[i].end(), out);
  }
  return tokens.to(device);
}

}  // namespace spectralquant::model
