#pragma once
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "spectralquant/gguf/matrix.h"
#include "spectralquant/model/model.h"
#include "spectralquant/quantize/fix_columns.h"
#include "spectralquant/tune/parameter.h"
#include "spectralquant/tune/schedule.h"

namespace spectralquant::tune {

/// Tensors of a GGUF file by name, as their bytes stand in it.
using TensorBytes = std::map<std::string, std::vector<std::byte>, std::less<>>;

/// Rates of one step, each in a unit that means the same in every tensor of every model.
struct Rates {
  double weights = 0;       ///< of free columns, in shares of the matrix's root mean square
  double super_scales = 0;  ///< of d and dmin where columns are fixed, relative
  double vectors = 0;       ///< of tensors that stay in float32, like weights
};

/// A model on its way to the grid: matrices of which ever more columns are fixed, and the vectors
/// that a quantized file keeps in F32.
///
/// A fixed column's codes, scales and mins never move again; its d and dmin may, by a factor that
/// is rounded to fp16 with them in every pass. Tensors of any other type (an allowed fallback) take
/// part with their decoded values and stay as they are.
class Student {
 public:
  /// Starts as `original`, nothing fixed, or as `solved`, all of it fixed. `solved` tells what each
  /// matrix becomes. Both must outlive the Student.
  Student(const gguf::File& original, const gguf::File& solved, Start start, torch::Device device);

  /// Sets everything in the model: leaves() require gradients, and update() changes them in place.
  void put_into(model::Model& model) const;
  const std::vector<gguf::MatrixId>& ids() const { return ids_; }
  const std::vector<torch::Tensor>& leaves() const { return leaves_; }

  /// The matrix of that id; nullptr if it is none of the student's.
  quantize::PartialMatrix* matrix(const gguf::MatrixId& id);

  /// Makes the columns of `stage` free in matrices that read the same input, and fixes all others.
  /// The order is chosen the first time, from the moment there is then.
  void set_free(const model::Readers& readers, const Stage& stage,
                const quantize::ColumnMoments& moments, const quantize::FixOptions& options);

  /// Super-scales learn from where they are now.
  void begin_stage();

  /// One step down the gradients at leaves(), in their order; an undefined one moves nothing.
  ///
  /// step: of the run; stage_step: since begin_stage().
  void update(const std::vector<torch::Tensor>& gradients, const Rates& rates, std::int64_t step,
              std::int64_t stage_step);

  /// What the file holds: bytes by tensor name. All columns have to be fixed.
  TensorBytes pack() const;

  /// Shows every tensor that a later run needs to go on, with a name. Undefined ones may become
  /// defined.
  void visit_state(const std::function<void(const std::string&, torch::Tensor&)>& see);
  /// After the tensors of the state were changed.
  void restored();

 private:
  struct Matrix {
    quantize::PartialMatrix grid;
    Parameter weight;         ///< its value is grid.weight
    Parameter d, dmin;        ///< relative changes since the stage began
    torch::Tensor d0, dmin0;  ///< what they are relative to
    torch::Tensor order;      ///< of the columns, int32; undefined before the first share
    double root_mean_square = 0;
  };
  /// A vector, or its logarithm where all of it is negative (decay rates): so it stays negative.
  struct Vector {
    Parameter parameter;
    bool negative_exponential = false;
    torch::Tensor value() const;
  };
  struct Entry {
    gguf::MatrixId id;
    std::size_t index = 0;  ///< in matrices_ or vectors_
    bool is_matrix = false;
  };

  void add_matrix(const gguf::MatrixId& id, const format::Grid& grid, torch::Tensor weight);
  void add_vector(const std::string& name, const torch::Tensor& value);
  void update_super_scales(Matrix& matrix, const torch::Tensor& gradient, double rate,
                           std::int64_t stage_step);

  torch::Device device_;
  std::vector<gguf::MatrixId> ids_;
  std::vector<Entry> entries_;  ///< in the order of ids_
  std::vector<Matrix> matrices_;
  std::vector<Vector> vectors_;
  std::vector<const gguf::Tensor*> untouched_;
  std::vector<torch::Tensor> leaves_;
};

/// sums[i] += part[i] in float32; undefined tensors count as zeros. Nothing of `part` is kept.
void add_up(std::vector<torch::Tensor>& sums, const std::vector<torch::Tensor>& part);

/// Sets packed tensors in a model as the decoder will see them. `solved` tells their types and
/// shapes.
void put_packed(const TensorBytes& packed, const gguf::File& solved, model::Model& model);

}  // namespace spectralquant::tune
