#pragma once
#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "spectralquant/model/architecture.h"

namespace spectralquant::model {

/// Rotary position embedding: pair i of a head's values is turned by position · base^(−2i / n_dims)
/// · scale[i].
struct Rope {
  /// leading values of a head that are turned, even; the others pass through
  std::int64_t n_dims = 0;
  double base = 10000.0;
  /// [n_dims / 2]; empty: all 1
  std::vector<float> scale;
  /// what cosine and sine are multiplied by
  double magnitude = 1.0;
  /// pairs (2i, 2i + 1), llama.cpp's "norm"; else (i, i + n_dims / 2), its "neox"
  bool adjacent_pairs = false;

  /// `scale` on a device, float32; copied there once, so that a pass never waits for the host. It
  /// must not change any more.
  torch::Tensor scale_on(torch::Device device) const;

  struct Copies {
    std::mutex mutex;
    std::map<std::pair<c10::DeviceType, c10::DeviceIndex>, torch::Tensor> by_device;
  };
  std::shared_ptr<Copies> copies = std::make_shared<Copies>();
};

/// Reads the keys rope.* as llama.cpp does: their defaults, linear and YaRN scaling.
///
/// Errors   Error(kBadInput) naming the key: a value that llama.cpp cannot run either, or "longrope"
///          factors, whose choice depends on the length of the context.
/// Source   llama.cpp: src/llama-model.cpp, load_hparams; src/llama-context.cpp, constructor;
///          ggml/src/ggml-cpu/ops.cpp, rope_yarn. Peng et al., YaRN, arXiv 2309.00071.
Rope read_rope(const HyperParameters& get, std::int64_t head_size);

/// Shapes   x: [B, T, H, D], T positions from first_position on.
torch::Tensor rotate(const torch::Tensor& x, const Rope& rope, std::int64_t first_position);

}  // namespace spectralquant::model
