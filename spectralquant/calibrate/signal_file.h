#pragma once
#include <torch/types.h>

#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/writer.h"

namespace spectralquant::calibrate {

/// Float tensors on their way into a GGUF file: [rows, cols] becomes GGUF shape [cols, rows].
class TensorList {
 public:
  void add(std::string name, const torch::Tensor& tensor);
  /// Writes all of them atomically.  Errors  those of gguf::Writer.
  void write(const std::string& path, const gguf::Metadata& metadata, bool overwrite) const;

 private:
  std::vector<gguf::TensorPlan> plans_;
  std::vector<torch::Tensor> tensors_;  ///< float32, contiguous, on the CPU
};

/// A float tensor of one or two dimensions read from a GGUF file; a copy.
torch::Tensor read_tensor(const gguf::Tensor& tensor);

/// Opens a GGUF file that is expected to hold signals.
/// Errors   those of gguf::File::open(); llama.cpp's old imatrix format is refused by name, with
///          the fix.
gguf::File open_signal_file(const std::string& path);

}  // namespace spectralquant::calibrate
