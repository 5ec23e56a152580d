#pragma once
#include <torch/types.h>

namespace spectralquant::calibrate {

/// Memory that was freed goes back to the system: between blocks, as the tensors of the next may be
/// of other sizes.
void trim_memory();

/// Pages of a tensor that lies in a file leave memory until they are read again; any other tensor
/// stays as it is.
void page_out(const torch::Tensor& tensor);

}  // namespace spectralquant::calibrate
