#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "spectralquant/format/formats.h"

namespace spectralquant::format {

/// A quantized matrix: exactly what the decoder will see, never a float shadow.
///
/// What its numbers mean: Grid. Shapes: codes [rows × cols]; scales, mins [rows × cols / block]; d,
/// dmin [rows × cols / super_block], all row-major; mins and dmin are empty in a format without.
struct GridMatrix {
  const Grid* grid = nullptr;       ///< never nullptr but in an empty matrix
  std::int64_t rows = 0, cols = 0;  ///< cols is a multiple of the super-block
  std::vector<std::int8_t> codes, scales, mins;
  std::vector<std::uint16_t> d, dmin;  ///< fp16 bits

  GridMatrix() = default;
  /// Zeros. Error(kBadInput) if the columns are no whole super-blocks.
  GridMatrix(const Grid& grid, std::int64_t rows, std::int64_t cols);

  /// Values of rows [first, first + n), computed as the decoder does. out: n × cols floats.
  void decode(std::int64_t first, std::int64_t n, float* out) const;
  /// Stores super-block `index` = row · cols / super_block + column / super_block.
  void put(std::int64_t index, const SuperBlock& values);
  /// Rows [first, first + n) of a matrix of the same format and width become those at `to`.
  void copy_rows(const GridMatrix& from, std::int64_t first, std::int64_t n, std::int64_t to);
  /// The rows as they stand in a file.
  std::vector<std::byte> to_bytes(int n_threads = 1) const;
  /// bytes: rows × cols / super_block blocks, of any alignment.
  static GridMatrix from_bytes(const Grid& grid, const std::byte* bytes, std::int64_t rows,
                               std::int64_t cols);
};

}  // namespace spectralquant::format
