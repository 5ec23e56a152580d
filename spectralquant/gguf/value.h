#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::gguf {

static_assert(std::endian::native == std::endian::little,
              "GGUF files are read and written in the machine's own byte order");

/// Bytes of a scalar of this type; 0 for strings, arrays and numbers that are no type.
std::size_t scalar_bytes(ValueType type);

bool is_value_type(std::uint32_t number);

/// Outcome of walking over one value.
struct ValueExtent {
  std::uint64_t size_bytes = 0;
  /// why these bytes are no value; then size_bytes is how far it got
  const char* problem = nullptr;
};

/// How many of the bytes belong to one value of this type. Reads nothing beyond the view.
ValueExtent find_extent(ValueType type, std::string_view bytes);

/// Little-endian number at the front of bytes, which must be long enough.
template <typename T>
T load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

bool is_utf8(std::string_view text);

}  // namespace spectralquant::gguf
