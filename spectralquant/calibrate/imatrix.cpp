#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "spectralquant/calibrate/signal_file.h"
#include "spectralquant/calibrate/signals.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"

// Format: per weight NAME.in_sum2 F32 [cols, n_matrices] = Σ x², NAME.counts F32 [1, n_matrices] =
// number of tokens. Source: llama.cpp, tools/imatrix/imatrix.cpp (save_imatrix) and
// tools/quantize/quantize.cpp (load_imatrix).
namespace spectralquant::calibrate {
namespace {

constexpr std::string_view kSuffix = ".in_sum2", kCounts = ".counts";

Error damaged_imatrix(const std::string& path, std::string problem) {
  return bad_input("damaged importance matrix: " + std::move(problem), path,
                   "make it again with llama-imatrix");
}

/// A tensor of an imatrix, float32.
torch::Tensor read_list(const gguf::Tensor& tensor, const std::string& path) {
  if (tensor.type != gguf::Type::F32)
    throw damaged_imatrix(
        path, fmt::format("{} is {}, not F32", tensor.name, gguf::traits(tensor.type).name));
  return read_tensor(tensor);
}

/// E[x²] of each matrix's columns, [n_matrices, cols], and the tokens that reached each.
std::pair<torch::Tensor, torch::Tensor> read_means(const gguf::Tensor& sums,
                                                   const gguf::Tensor& counts,
                                                   const std::string& path) {
  if (sums.n_values() % counts.n_values() != 0)
    throw damaged_imatrix(path,
                          fmt::format("{} has {} values, which {} of {} do not divide", sums.name,
                                      sums.n_values(), counts.name, counts.n_values()));
  const torch::Tensor n = read_list(counts, path).reshape({-1, 1}).round();
  const torch::Tensor sum = read_list(sums, path).reshape({n.size(0), -1});
  const auto refuse = [&](const torch::Tensor& bad, const std::string& name, const char* what) {
    if (!bad.any().item<bool>()) return;
    const torch::Tensor first = bad.nonzero()[0];
    throw damaged_imatrix(
        path, fmt::format("{} {} (matrix {}, value {})", name, what, first[0].item<std::int64_t>(),
                          first[1].item<std::int64_t>()));
  };
  refuse(~n.isfinite(), counts.name, "holds NaN or infinity");
  refuse(n < 0, counts.name, "is negative");
  refuse(~sum.isfinite() & (n > 0), sums.name, "holds NaN or infinity");
  refuse((sum < 0) & (n > 0), sums.name, "is negative");
  // As llama-quantize does, an expert that no token reached counts every column alike.
  return {torch::where((n == 0).expand_as(sum), torch::ones_like(sum), sum / n).contiguous(), n};
}

torch::Tensor diagonal(const Signals& signals, const torch::Tensor& h) {
  return (signals.diagonal_only ? h : h.diagonal()).to(torch::kFloat32).contiguous();
}

/// Tokens that stand behind a matrix's moment. An expert without any has the mean over all.
float count_of(const Signals& signals, const MatrixSignal& signal) {
  const std::int64_t n = signal.n_tokens >= 0 ? signal.n_tokens : signals.n_tokens;
  return static_cast<float>(std::max<std::int64_t>(n, 1));
}

/// An entry of an imatrix: rows of sums and counts, one for each matrix of a tensor.
struct Rows {
  std::vector<torch::Tensor> sums;
  std::vector<float> counts;

  void put(std::int64_t row, const torch::Tensor& sum, float count) {
    const auto at = static_cast<std::size_t>(row);
    if (at >= sums.size()) {
      sums.resize(at + 1, torch::zeros_like(sum));
      counts.resize(at + 1, 0);
    }
    sums[at] = sum;
    counts[at] = count;
  }
};

}  // namespace

torch::Tensor importance(const Signals& signals, const gguf::MatrixId& id) {
  const auto it = signals.matrices.find(id);
  if (it == signals.matrices.end() || !it->second.h.defined()) return {};
  torch::Tensor h = diagonal(signals, it->second.h);
  if (!signals.diagonal_only && signals.n_tokens > 0) {
    const float count = count_of(signals, it->second);
    h = (h * count) / count;
  }
  return torch::where((h == 0).all(-1, true), torch::ones_like(h), h);
}

std::vector<std::string> without_importance(const Signals& signals) {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> zeros;  // of how many matrices
  for (const auto& [id, signal] : signals.matrices) {
    if (!signal.h.defined()) continue;
    auto& [n_zero, n] = zeros[id.tensor];
    n_zero += (diagonal(signals, signal.h) == 0).all().item<bool>();
    ++n;
  }
  std::vector<std::string> names;
  for (const auto& [name, count] : zeros) {
    const auto [n_zero, n] = count;
    if (n_zero == 0) continue;
    names.push_back(n == 1 ? name : fmt::format("{} ({} of its {} matrices)", name, n_zero, n));
  }
  return names;
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
  std::map<std::string, Rows> entries;
  for (const auto& [id, signal] : signals.matrices) {
    if (!signal.h.defined()) continue;
    const float count = count_of(signals, signal);
    const torch::Tensor sum = diagonal(signals, signal.h) * count;
    // llama-quantize takes a count of 0 as columns that all count alike; zeros with a count it
    // would turn into weights of zero.
    const bool zero = (sum == 0).all().item<bool>();
    entries[id.tensor].put(std::max<std::int64_t>(id.slice, 0), sum, zero ? 0 : count);
  }
  TensorList tensors;
  for (const auto& [name, rows] : entries) {
    tensors.add(name + std::string(kSuffix), torch::stack(rows.sums));
    tensors.add(name + std::string(kCounts), torch::tensor(rows.counts).unsqueeze(1));
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
  for (const gguf::Tensor& tensor : file.tensors()) {
    const bool is_count = tensor.name.ends_with(kCounts);
    if (!is_count && !tensor.name.ends_with(kSuffix)) continue;
    const std::string name =
        tensor.name.substr(0, tensor.name.size() - (is_count ? kCounts : kSuffix).size());
    const std::string other = name + std::string(is_count ? kSuffix : kCounts);
    const gguf::Tensor* counts = file.find(other);
    if (!counts)
      throw damaged_imatrix(path, fmt::format("{} is missing beside {}", other, tensor.name));
    if (is_count) continue;
    const auto [h, n] = read_means(tensor, *counts, path);
    for (std::int64_t i = 0; i < h.size(0); ++i) {
      const bool alone = h.size(0) == 1;
      MatrixSignal& signal = signals.matrices[{name, alone ? gguf::MatrixId::kWhole : i}];
      signal.h = h[i].clone();
      if (!alone) signal.n_tokens = static_cast<std::int64_t>(n[i].item<float>());
    }
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
