#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"

namespace spectralquant::gguf {

/// A tensor to be written: everything but its bytes.
struct TensorPlan {
  std::string name;
  Type type = Type::F32;
  std::uint32_t n_dims = 0;
  std::array<std::uint64_t, 4> shape{1, 1, 1, 1};
  std::uint64_t size_bytes() const;
};

struct WriteOptions {
  bool overwrite = false;  ///< replace an existing file (never the input: see Writer)
  std::uint32_t alignment = 32;
};

/// Writes a GGUF v3 file atomically: into PATH.partial, synced, verified by reading back, renamed.
///
/// Tensors may be written in any order and in pieces; disk space is reserved when the Writer is
/// made. A Writer destroyed before commit() removes its partial file; a killed process leaves only
/// PATH.partial, which the next Writer for PATH replaces. A PATH that is a symbolic link stays one:
/// the file it points to is replaced. The keys split.* are left out (the result is one file) and
/// general.alignment says what is true.
///
/// Threads  write() may be called from several threads for different pieces.
/// Errors   Error(kBadInput) when PATH exists and overwrite is off, or PATH is one of `inputs`, and
///          on a full disk, with the bytes needed; Error(kFailed) on a failed write.
class Writer {
 public:
  Writer(std::string path, const Metadata& metadata, std::vector<TensorPlan> tensors,
         WriteOptions options = {}, const std::vector<std::string>& inputs = {});
  ~Writer();
  Writer(Writer&&) noexcept;

  const std::vector<TensorPlan>& tensors() const;
  std::uint64_t file_bytes() const;

  /// Writes size_bytes bytes at offset_bytes of tensor `index`. A piece may be written again, but
  /// pieces may not overlap.
  void write(std::size_t index, std::uint64_t offset_bytes, const void* data,
             std::uint64_t size_bytes);

  /// Syncs, reads the file back (header parses, every tensor's hash equals what was written), lets
  /// `check` look at it, renames.
  /// Errors   Error(kFailed) if anything was not written, or was written differently; what `check`
  ///          throws. Nothing is then left behind.
  void commit(const std::function<void(const File&)>& check = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spectralquant::gguf
