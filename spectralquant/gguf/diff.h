#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// A metadata key that two files do not agree on.
struct KeyDifference {
  std::string key;
  std::optional<std::string> left, right;  ///< the values as text; nullopt where the key is absent
};

/// A tensor that two files do not agree on.
struct TensorDifference {
  std::string name;
  /// "Q4_K [256, 768]"; nullopt where the tensor is absent
  std::optional<std::string> left, right;

  /// When type and shape are the same: how many of the bytes and of the type's blocks differ (a
  /// plain type's block is one value).
  std::uint64_t n_bytes = 0, n_bytes_different = 0;
  std::uint64_t n_blocks = 0, n_blocks_different = 0;

  bool same_layout() const { return left == right; }
};

/// What two files do not have in common, in the order of the left file, then what only the right
/// one has.
struct Difference {
  std::vector<KeyDifference> keys;
  std::vector<TensorDifference> tensors;
  std::uint64_t n_keys_equal = 0;
  std::uint64_t n_tensors_equal = 0;

  bool identical() const { return keys.empty() && tensors.empty(); }
};

/// Compares metadata and tensors, bit for bit; order, padding and the cut into parts do not count.
Difference compare(const File& left, const File& right);

}  // namespace spectralquant::gguf
