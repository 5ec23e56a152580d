#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/metadata.h"
#include "spectralquant/gguf/types.h"

namespace spectralquant::gguf {

/// One tensor of a mapped file. `shape` is in GGUF order: shape[0] = columns, the contiguous
/// dimension.
struct Tensor {
  std::string name;
  Type type = Type::F32;
  std::uint32_t n_dims = 0;
  std::array<std::uint64_t, 4> shape{1, 1, 1, 1};
  const std::byte* data = nullptr;  ///< inside the mapping, size_bytes long, checked
  std::uint64_t size_bytes = 0;

  std::uint64_t n_cols() const { return shape[0]; }
  std::uint64_t n_rows() const { return shape[1] * shape[2] * shape[3]; }
  std::uint64_t n_values() const { return n_cols() * n_rows(); }
  std::uint64_t row_bytes() const { return size_bytes / n_rows(); }
  std::string shape_text() const;  ///< "[256, 768]"
};

/// A GGUF file (v2 or v3), or a set of split files, mapped read-only.
///
/// Every length, count and offset is checked against the file when it is opened: a File that exists
/// can be read anywhere without further checks.
///
///     auto file = gguf::File::open("model.gguf"); // a split set: give …-00001-of-00003.gguf
///     std::vector<float> row(t.n_cols());
///     gguf::decode(*file.find("blk.0.ffn_up.weight"), 0, 1, row.data());
///
/// Errors   Error(kBadInput) with place and fix: not a GGUF, unsupported version, truncated,
///          overlapping or lying lengths, unknown tensor type, duplicate names, missing split.
/// Threads  const members may be called from any thread. Move-only; views live as long as the File.
class File {
 public:
  static File open(const std::string& path);
  ~File();
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;

  const std::string& path() const;                ///< as given to open()
  const std::vector<std::string>& paths() const;  ///< of all splits
  std::uint32_t version() const;
  std::uint64_t size_bytes() const;  ///< all splits together
  std::uint32_t alignment() const;
  const Metadata& metadata() const;            ///< of the first split
  const std::vector<Tensor>& tensors() const;  ///< in file order
  const Tensor* find(std::string_view name) const;
  /// Error(kBadInput) naming the tensor if absent
  const Tensor& require(std::string_view name) const;
  std::uint64_t n_values() const;    ///< of all tensors
  std::string architecture() const;  ///< general.architecture, "" if absent
  std::string hash() const;          ///< XXH3-128 of all bytes; computed once, on demand

 private:
  struct Impl;
  explicit File(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Decodes rows [first_row, first_row + n_rows) to float32.
///
/// Shapes   out: n_rows * n_cols floats, row-major.
/// Errors   Error(kBadInput) naming the tensor when its type cannot be decoded.
/// Threads  pure.
void decode(const Tensor& tensor, std::uint64_t first_row, std::uint64_t n_rows, float* out);

/// Place of the first NaN or infinity of a decoded tensor, or an Error-free return: throws
/// Error(kBadInput) "blk.0.ffn_up.weight holds NaN at row 3, column 17".
void require_finite(const Tensor& tensor, const std::string& file_path);

}  // namespace spectralquant::gguf
