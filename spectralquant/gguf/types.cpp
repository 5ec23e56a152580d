#include "spectralquant/gguf/types.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/codec/decoder.h"

namespace spectralquant::gguf {
namespace {

struct Row {
  Type type;
  std::string_view name;
  std::uint32_t block_values, block_bytes;
};

// Source: ggml-common.h (the static_asserts on block sizes) and ggml.c (type_traits).
constexpr std::array kRows{
    Row{Type::F32, "F32", 1, 4},
    Row{Type::F16, "F16", 1, 2},
    Row{Type::Q4_0, "Q4_0", 32, 18},
    Row{Type::Q4_1, "Q4_1", 32, 20},
    Row{Type::Q5_0, "Q5_0", 32, 22},
    Row{Type::Q5_1, "Q5_1", 32, 24},
    Row{Type::Q8_0, "Q8_0", 32, 34},
    Row{Type::Q8_1, "Q8_1", 32, 36},
    Row{Type::Q2_K, "Q2_K", 256, 84},
    Row{Type::Q3_K, "Q3_K", 256, 110},
    Row{Type::Q4_K, "Q4_K", 256, 144},
    Row{Type::Q5_K, "Q5_K", 256, 176},
    Row{Type::Q6_K, "Q6_K", 256, 210},
    Row{Type::Q8_K, "Q8_K", 256, 292},
    Row{Type::IQ2_XXS, "IQ2_XXS", 256, 66},
    Row{Type::IQ2_XS, "IQ2_XS", 256, 74},
    Row{Type::IQ3_XXS, "IQ3_XXS", 256, 98},
    Row{Type::IQ1_S, "IQ1_S", 256, 50},
    Row{Type::IQ4_NL, "IQ4_NL", 32, 18},
    Row{Type::IQ3_S, "IQ3_S", 256, 110},
    Row{Type::IQ2_S, "IQ2_S", 256, 82},
    Row{Type::IQ4_XS, "IQ4_XS", 256, 136},
    Row{Type::I8, "I8", 1, 1},
    Row{Type::I16, "I16", 1, 2},
    Row{Type::I32, "I32", 1, 4},
    Row{Type::I64, "I64", 1, 8},
    Row{Type::F64, "F64", 1, 8},
    Row{Type::IQ1_M, "IQ1_M", 256, 56},
    Row{Type::BF16, "BF16", 1, 2},
    Row{Type::TQ1_0, "TQ1_0", 256, 54},
    Row{Type::TQ2_0, "TQ2_0", 256, 66},
    Row{Type::MXFP4, "MXFP4", 32, 17},
    Row{Type::NVFP4, "NVFP4", 64, 36},
    Row{Type::Q1_0, "Q1_0", 128, 18},
    Row{Type::Q2_0, "Q2_0", 64, 18},
};

constexpr std::size_t kTableSize = 64;  // above the highest type number

struct Table {
  std::array<TypeTraits, kTableSize> traits{};  // block_values 0: no such type
  Table() {
    for (const Row& row : kRows)
      traits[static_cast<std::size_t>(row.type)] = {row.name, row.block_values, row.block_bytes,
                                                    find_decoder(row.type) != nullptr};
  }
};

const Table& table() {
  static const Table instance;
  return instance;
}

}  // namespace

std::optional<TypeTraits> find_traits(std::uint32_t type) {
  if (type >= kTableSize || table().traits[type].block_values == 0) return std::nullopt;
  return table().traits[type];
}

const TypeTraits& traits(Type type) {
  const auto number = static_cast<std::uint32_t>(type);
  if (!find_traits(number))
    throw bad_input("tensor type " + std::to_string(number) + " is unknown");
  return table().traits[number];
}

std::optional<Type> type_by_name(std::string_view name) {
  auto same = [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) ==
           std::toupper(static_cast<unsigned char>(b));
  };
  for (const Row& row : kRows)
    if (std::equal(name.begin(), name.end(), row.name.begin(), row.name.end(), same))
      return row.type;
  return std::nullopt;
}

double bits_per_weight(Type type) {
  const TypeTraits& t = traits(type);
  return 8.0 * t.block_bytes / t.block_values;
}

}  // namespace spectralquant::gguf
