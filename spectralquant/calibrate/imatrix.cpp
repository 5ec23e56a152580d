#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "spectralquant/calibrate/signal_file.h"
#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"

// Format: per weight NAME.in_sum2 F32 [cols, n_matrices] = Σ x², NAME.counts F32 [1, n_matrices] =
// number of tokens. Source: llama.cpp, tools/imatrix/imatrix.cpp (save_imatrix) and
// tools/quantize/quantize.cpp (load_imatrix).
namespace spectralquant::calibrate {
namespace {

constexpr std::string_view kSuffix = ".in_sum2";

torch::Tensor diagonal(const Signals& signals, const torch::Tensor& h) {
  return (signals.diagonal_only ? h : h.diagonal()).to(torch::kFloat32).contiguous();
}

}  // namespace

torch::Tensor importance(const Signals& signals, const std::string& name) {
  const auto it = signals.matrices.find(name);
  if (it == signals.matrices.end() || !it->second.h.defined()) return {};
  const torch::Tensor h = diagonal(signals, it->second.h);
  if (signals.diagonal_only || signals.n_tokens <= 0) return h;
  const float count = static_cast<float>(signals.n_tokens);
  return (h * count) / count;
}

void save_imatrix(const Signals& signals, const std::string& path, std::int64_t window_tokens,
                  bool overwrite) {
  const std::int64_t n_tokens = std::max<std::int64_t>(signals.n_tokens, 1);
  gguf::Metadata metadata;
  metadata.set("general.type", gguf::Value::of_string("imatrix"));
  metadata.set("imatrix.datasets", gguf::Value::of_strings({signals.description}));
  metadata.set("imatrix.chunk_count", gguf::Value::of_u32(static_cast<std::uint32_t>(
                                          (n_tokens + window_tokens - 1) / window_tokens)));
  metadata.set("imatrix.chunk_size",
               gguf::Value::of_u32(static_cast<std::uint32_t>(window_tokens)));
  TensorList tensors;
  const float count = static_cast<float>(n_tokens);
  for (const auto& [name, signal] : signals.matrices) {
    if (!signal.h.defined()) continue;
    torch::Tensor sums = diagonal(signals, signal.h) * count;
    if (sums.dim() == 1) sums = sums.unsqueeze(0);
    tensors.add(name + std::string(kSuffix), sums);
    tensors.add(name + ".counts", torch::full({sums.size(0), 1}, count));
  }
  tensors.write(path, metadata, overwrite);
}

Signals load_imatrix(const std::string& path) {
  const gguf::File file = open_signal_file(path);
  if (file.metadata().string_or("general.type", "") != "imatrix") {
    throw bad_input("this GGUF file is no importance matrix", path,
                    "importance matrices are made by: llama-imatrix --output-format gguf");
  }
  Signals signals;
  signals.diagonal_only = true;
  signals.text_hash = file.hash();
  if (const gguf::Value* datasets = file.metadata().find("imatrix.datasets")) {
    signals.description = fmt::format("imatrix: {}", fmt::join(datasets->strings(), ", "));
  }
  for (const gguf::Tensor& sums : file.tensors()) {
    if (!sums.name.ends_with(kSuffix)) continue;
    const std::string name = sums.name.substr(0, sums.name.size() - kSuffix.size());
    const gguf::Tensor* counts = file.find(name + ".counts");
    if (!counts || counts->n_values() == 0 || sums.n_values() % counts->n_values() != 0) {
      throw bad_input(
          fmt::format("damaged importance matrix: {}.counts is missing or does not fit", name),
          path, "make it again with llama-imatrix");
    }
    const torch::Tensor n = read_tensor(*counts).reshape({-1, 1});
    const torch::Tensor mean = read_tensor(sums).reshape({n.size(0), -1}) / n;
    if (!torch::isfinite(mean).logical_or(n == 0).all().item<bool>()) {
      throw bad_input(fmt::format("damaged importance matrix: {} holds NaN or infinity", sums.name),
                      path, "make it again with llama-imatrix");
    }
    // As llama-quantize does, an expert that no token reached counts every column alike.
    const torch::Tensor h =
        torch::where((n == 0).expand_as(mean), torch::ones_like(mean), mean).contiguous();
    signals.matrices[name].h = h.size(0) == 1 ? h[0].clone() : h;
    signals.n_tokens = std::max(signals.n_tokens, static_cast<std::int64_t>(n.max().item<float>()));
  }
  if (signals.matrices.empty())
    throw bad_input("this importance matrix is empty", path, "make it again with llama-imatrix");
  return signals;
}

bool is_imatrix(const std::string& path) {
  return open_signal_file(path).metadata().string_or("general.type", "") == "imatrix";
}

}  // namespace spectralquant::calibrate
