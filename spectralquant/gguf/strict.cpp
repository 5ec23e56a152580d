#include "spectralquant/gguf/strict.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace spectralquant::gguf {
namespace {

// Source: llama.cpp, src/llama-quant.cpp, tensor_allows_quantization, as of build 11669 (2026).
// A tensor whose name contains one of these keeps its type.
constexpr std::string_view kKeptParts[] = {
    "_norm.weight", "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",                  // which expert a token goes to
    "altup", "laurel", "per_layer_model_proj",  // Gemma 3n: very small
    // Mamba, Kimi, LFM2: short convolutions
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight",
    "indexer.q_proj.weight",  // MiniMax: tiny
    "time_mix_first.weight",  // RWKV: small though 2-D
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight",
    "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight",
    "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",  // T5: relative positions
    // vision
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",  // audio
};

// Whole names: absolute positions and token types of BERT-like models.
constexpr std::string_view kKeptNames[] = {"position_embd.weight", "token_types.weight"};

/// Dimensions as ggml counts them: trailing ones do not count, so [256, 1] has one.
std::uint32_t effective_dims(const Tensor& tensor) {
  std::uint32_t n = 4;
  while (n > 1 && tensor.shape[n - 1] == 1) --n;
  return n;
}

}  // namespace

// llama.cpp's rule does not look at the architecture either, beyond names that only those
// architectures have.
bool is_matrix_to_quantize(std::string_view, const Tensor& tensor) {
  const std::string_view name = tensor.name;
  if (effective_dims(tensor) < 2 || !name.ends_with("weight")) return false;
  if (std::ranges::find(kKeptNames, name) != std::end(kKeptNames)) return false;
  return std::ranges::none_of(
      kKeptParts, [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

Inventory take_inventory(const File& file) {
  Inventory inventory;
  inventory.file_bytes = file.size_bytes();
  const std::string architecture = file.architecture();
  std::vector<const Tensor*> matrices;
  std::map<Type, std::uint64_t> of_matrices;  // weights by quantized type
  for (const Tensor& tensor : file.tensors()) {
    Inventory::PerType& of_type = inventory.types[tensor.type];
    of_type.n_tensors += 1;
    of_type.n_values += tensor.n_values();
    of_type.size_bytes += tensor.size_bytes;
    inventory.tensor_bytes += tensor.size_bytes;
    inventory.n_values += tensor.n_values();
    const std::string_view type_name = traits(tensor.type).name;
    if (!is_matrix_to_quantize(architecture, tensor)) {
      inventory.kept.push_back(
          fmt::format("{} {} {}", tensor.name, type_name, tensor.shape_text()));
      continue;
    }
    inventory.n_matrix_values += tensor.n_values();
    inventory.matrix_bytes += tensor.size_bytes;
    matrices.push_back(&tensor);
    if (traits(tensor.type).block_values > 1) of_matrices[tensor.type] += tensor.n_values();
  }
  const auto more = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto most = std::max_element(of_matrices.begin(), of_matrices.end(), more);
  if (most != of_matrices.end()) inventory.matrix_type = most->first;
  for (const Tensor* matrix : matrices) {
    if (matrix->type == inventory.matrix_type) continue;
    inventory.violations.push_back(fmt::format("{} is {}, not {}", matrix->name,
                                               traits(matrix->type).name,
                                               traits(inventory.matrix_type).name));
  }
  if (inventory.n_values > 0)
    inventory.file_bpw =
        8.0 * static_cast<double>(inventory.tensor_bytes) / static_cast<double>(inventory.n_values);
  if (inventory.n_matrix_values > 0)
    inventory.matrix_bpw = 8.0 * static_cast<double>(inventory.matrix_bytes) /
                           static_cast<double>(inventory.n_matrix_values);
  inventory.strict = inventory.n_matrix_values > 0 && inventory.violations.empty();
  return inventory;
}

}  // namespace spectralquant::gguf
