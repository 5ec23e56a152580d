#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/model/model.h"
#include "spectralquant/tune/latent_matrix.h"

namespace spectralquant::tune {

/// Tensors of a GGUF file by name, as their bytes stand in it.
using TensorBytes = std::map<std::string, std::vector<std::byte>, std::less<>>;

/// A quantized model that can be learned: every Q4_K matrix as a LatentMatrix, and the vectors that
/// a Q4_K file keeps in F32.
///
/// Tensors of any other type (an allowed fallback) take part with their decoded values and stay as
/// they are. A step: put_into() a model, gradients of a loss at leaves(), then update().
class Student {
 public:
  /// Starts as `solved`, bit for bit. Only tensors whose name begins with prefix; "" means all.
  ///
  /// clip: see LatentMatrix. Both files must outlive the Student; `original` holds every tensor of
  /// `solved`, unquantized.
  Student(const gguf::File& original, const gguf::File& solved, double clip, torch::Device device,
          std::string_view prefix = {});

  /// Decodes everything and sets it in the model: new leaves, in the order of names(), that require
  /// gradients.
  void put_into(model::Model& model);
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<torch::Tensor>& leaves() const { return leaves_; }

  /// One step of Adam down the gradients at leaves(), in their order; an undefined one moves
  /// nothing. Uses them up.
  void update(std::vector<torch::Tensor> gradients, const Rates& rates, std::int64_t step,
              const AdamOptions& options);

  /// What the file would hold now: Q4_K and F32 bytes by tensor name.
  TensorBytes pack() const;

  /// Everything that a later run needs to go on.
  std::vector<std::pair<std::string, Parameter*>> state();

 private:
  struct Entry {
    std::string name;
    std::size_t index = 0;  ///< in matrices_ or vectors_
    bool is_matrix = false;
  };

  torch::Device device_;
  std::vector<std::string> names_;
  std::vector<Entry> entries_;  ///< in the order of names_
  std::vector<LatentMatrix> matrices_;
  std::vector<Parameter> vectors_;
  std::vector<const gguf::Tensor*> fixed_;
  std::vector<torch::Tensor> leaves_;
};

/// sums[i] += part[i]; undefined tensors count as zeros.
void add_up(std::vector<torch::Tensor>& sums, const std::vector<torch::Tensor>& part);

/// A tensor of a file in torch's order of dimensions, float32.
torch::Tensor decode(const gguf::Tensor& tensor);

/// Sets packed tensors in a model as the decoder will see them. `solved` tells their types and
/// shapes.
void put_packed(const TensorBytes& packed, const gguf::File& solved, model::Model& model);

}  // namespace spectralquant::tune
