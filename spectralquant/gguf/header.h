#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/metadata.h"

namespace spectralquant::gguf {

inline constexpr std::uint32_t kMaxDims = 4;            ///< ggml's GGML_MAX_DIMS
inline constexpr std::size_t kMaxKeyBytes = 65535;      ///< GGUF specification
inline constexpr std::size_t kMaxNameBytes = 63;        ///< ggml: GGML_MAX_NAME, less its NUL
inline constexpr std::uint32_t kDefaultAlignment = 32;  ///< when general.alignment is absent

/// Everything before the tensor data of one GGUF file, with the tensors' places checked against the
/// file.
struct Header {
  std::uint32_t version = 0;
  std::uint32_t alignment = kDefaultAlignment;
  Metadata metadata;
  std::vector<Tensor> tensors;    ///< data points into the bytes that were parsed
  std::uint64_t data_offset = 0;  ///< where tensor data begins, a multiple of alignment
};

/// Reads the header of a GGUF file that lies in memory.
///
/// Nothing in the bytes is trusted: a count or length is compared with what is left of the file
/// before it is used, and memory grows only with bytes that are there. Padding after the last
/// tensor may be missing, as in files of some writers. The data must follow in the order of the
/// directory without gaps, as llama.cpp demands.
///
/// Shapes   bytes: the whole file, size_bytes long; the Header's tensors point into it.
/// Errors   Error(kBadInput) with the file, the tensor or key, and the byte offset.
/// Source   GGUF specification (ggml/docs/gguf.md), versions 2 and 3, little-endian.
Header parse_header(const std::byte* bytes, std::uint64_t size_bytes, const std::string& path);

/// The next multiple of `alignment` that is not below n.
std::uint64_t align_up(std::uint64_t n, std::uint64_t alignment);

/// Bytes of one row of n_cols values, or 0 when n_cols is no multiple of the type's block or the
/// size overflows.
std::uint64_t row_size_bytes(Type type, std::uint64_t n_cols);

}  // namespace spectralquant::gguf
