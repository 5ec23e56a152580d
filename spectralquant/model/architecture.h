#pragma once
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "spectralquant/model/model.h"

/// What the files of model/architectures share; callers use make_architecture() of model.h.
namespace spectralquant::model {

/// Reads "ARCH.key" of a file's metadata.
/// Errors  Error(kBadInput) naming the key when it is missing, of another type, or out of its
///         range.
class HyperParameters {
 public:
  explicit HyperParameters(const gguf::File& file)
      : file_(file), prefix_(file.architecture() + ".") {}

  std::int64_t count(std::string_view key) const;                            ///< ≥ 1
  std::int64_t count_or(std::string_view key, std::int64_t fallback) const;  ///< ≥ 0
  /// A count that a file may also give for every block, as an array; refused where blocks differ.
  std::int64_t count_of_blocks(std::string_view key) const;  ///< ≥ 1
  std::int64_t count_of_blocks_or(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key) const;
  double number_or(std::string_view key, double fallback) const;
  const gguf::Value* find(std::string_view key) const;
  std::string name(std::string_view key) const { return prefix_ + std::string(key); }
  /// Throws unless `ok`: "qwen35.attention.head_count is 5, which …". For files that llama.cpp
  /// cannot run either.
  void require(bool ok, std::string_view key, const std::string& why) const;
  /// The same for what llama.cpp runs and this program does not.
  void require_supported(bool ok, std::string_view key, const std::string& why) const;
  const gguf::File& file() const { return file_; }

 private:
  const gguf::File& file_;
  std::string prefix_;
};

/// Throws unless the file has a tensor of this name and shape.
/// Shapes  shape: GGUF order, columns first; trailing ones left out.
void require_shape(const gguf::File& file, const std::string& name,
                   std::initializer_list<std::int64_t> shape);

/// Throws if a tensor of the blocks is one that llama.cpp would use and this program would not: a
/// factor of a product ("….scale"), or one of the names given ("output.bias").
void require_known_tensors(const gguf::File& file,
                           std::initializer_list<std::string_view> unsupported = {});

/// "blk.3.attn_q.weight".
std::string weight_name(std::int64_t block, std::string_view part);

/// x Wᵀ + b, W and b a block's "PART.weight" and "PART.bias"; without b where the file has none.
torch::Tensor biased_product(const Pass& pass, std::int64_t block, std::string_view part,
                             const torch::Tensor& x);
/// Throws if the block has "PART.bias", and not of this size.
void check_bias(const gguf::File& file, std::int64_t block, std::string_view part,
                std::int64_t size);

/// causal_attention() over the tokens of x and those that a state holds; the state gets them.
/// Shapes   q: [B, T, H, D]; k, v: [B, T, G, D]; returns [B, T, H, D].
torch::Tensor cached_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, BlockState* state);

std::unique_ptr<Architecture> make_dense(
    const gguf::File& file);  ///< llama, qwen2, qwen3, qwen3moe
std::unique_ptr<Architecture> make_qwen35(const gguf::File& file);

}  // namespace spectralquant::model
