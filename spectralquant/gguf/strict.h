#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// True for the tensors that `llama-quantize --pure` turns into the target type: names ending in
/// "weight", two or more dimensions, and none of llama.cpp's exceptions (norms, conv1d, router
/// gates, positions, …).
///
/// Source  llama.cpp, llama-quant.cpp (tensor_allows_quantization).
bool is_matrix_to_quantize(std::string_view architecture, const Tensor& tensor);

/// What a file is made of, and whether it is strict: every matrix of one quantized type.
struct Inventory {
  struct PerType {
    std::uint64_t n_tensors = 0, n_values = 0, size_bytes = 0;
  };
  std::map<Type, PerType> types;
  std::uint64_t file_bytes = 0;
  std::uint64_t tensor_bytes = 0;
  std::uint64_t n_values = 0;         ///< parameters, all tensors
  std::uint64_t n_matrix_values = 0;  ///< parameters of matrices to quantize
  std::uint64_t matrix_bytes = 0;
  /// 8 * tensor_bytes / n_values: the figure llama-quantize prints (F32 norms counted)
  double file_bpw = 0;
  double matrix_bpw = 0;  ///< 8 * matrix_bytes / n_matrix_values: 4.5 for strict Q4_K
  /// the quantized type of most weights of matrices; Q4_K where none is quantized
  Type matrix_type = Type::Q4_K;
  bool strict = false;                  ///< every matrix is of that type
  std::vector<std::string> violations;  ///< "output.weight is Q6_K, not Q4_K"
  /// tensors left in F32 by rule: "blk.0.ssm_conv1d.weight F32 [4, 1024]"
  std::vector<std::string> kept;
};

Inventory take_inventory(const File& file);

}  // namespace spectralquant::gguf
