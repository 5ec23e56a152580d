#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace spectralquant::gguf {

/// Tensor types, numbered as in ggml.h (ggml_type). Types ggml has removed are absent.
enum class Type : std::uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q8_1 = 9,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  Q8_K = 15,
  IQ2_XXS = 16,
  IQ2_XS = 17,
  IQ3_XXS = 18,
  IQ1_S = 19,
  IQ4_NL = 20,
  IQ3_S = 21,
  IQ2_S = 22,
  IQ4_XS = 23,
  I8 = 24,
  I16 = 25,
  I32 = 26,
  I64 = 27,
  F64 = 28,
  IQ1_M = 29,
  BF16 = 30,
  TQ1_0 = 34,
  TQ2_0 = 35,
  MXFP4 = 39,
  NVFP4 = 40,
  Q1_0 = 41,
  Q2_0 = 42,
};

/// Layout of a type: rows are cut into blocks of `block_values` values, `block_bytes` bytes each.
struct TypeTraits {
  std::string_view name;       ///< as llama.cpp prints it: "Q4_K", "BF16"
  std::uint32_t block_values;  ///< 1 for plain types
  std::uint32_t block_bytes;
  bool decodable;  ///< decode() can turn it into floats
};

/// Traits of a type; nullopt for a number that is no known type.
std::optional<TypeTraits> find_traits(std::uint32_t type);

/// Traits of a type that was read from a checked File (never fails).
const TypeTraits& traits(Type type);

/// Type of a name ("q4_K", case ignored); nullopt if unknown.
std::optional<Type> type_by_name(std::string_view name);

/// Bits per weight of a type: 8 * block_bytes / block_values.
double bits_per_weight(Type type);

inline constexpr std::uint32_t kSuperBlock = 256;  ///< values in a K-quant super-block (QK_K)

}  // namespace spectralquant::gguf
