#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spectralquant::gguf {

/// Types of metadata values, numbered as in the GGUF specification.
enum class ValueType : std::uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

std::string_view value_type_name(ValueType type);  ///< "u32", "string", "array", …

/// One metadata value, kept as the very bytes of the file so that copying a key changes nothing.
///
/// Accessors convert; they return nullopt when the stored type does not fit (a string asked as a
/// number).
class Value {
 public:
  Value() = default;
  /// bytes: as in the file, after the type tag.  Errors  Error(kBadInput) unless they are one value
  /// of that type.
  Value(ValueType type, std::string bytes);

  static Value of_u32(std::uint32_t v);
  static Value of_u64(std::uint64_t v);
  static Value of_f32(float v);
  static Value of_bool(bool v);
  static Value of_string(std::string_view v);
  static Value of_strings(const std::vector<std::string>& v);

  ValueType type() const { return type_; }
  const std::string& bytes() const { return bytes_; }

  std::optional<std::int64_t> as_int() const;  ///< any integer type or bool, if it fits
  std::optional<double> as_number() const;     ///< any integer or float type
  std::optional<bool> as_bool() const;
  std::optional<std::string_view> as_string() const;

  bool is_array() const { return type_ == ValueType::kArray; }
  ValueType element_type() const;  ///< of an array
  std::size_t array_size() const;  ///< 0 for scalars
  /// views into this Value; empty unless an array of strings
  std::vector<std::string_view> strings() const;
  std::vector<double> numbers() const;  ///< empty unless an array of numbers or bools

  /// Text for people: scalars in full, arrays as "[4096 strings]" or their first few elements.
  std::string to_display(std::size_t max_elements = 8) const;

 private:
  ValueType type_ = ValueType::kUint32;
  std::string bytes_ = std::string(4, '\0');
};

struct KeyValue {
  std::string key;
  Value value;
};

/// Ordered metadata of a file.
class Metadata {
 public:
  const std::vector<KeyValue>& items() const { return items_; }
  const Value* find(std::string_view key) const;  ///< nullptr if absent
  void set(std::string_view key, Value value);    ///< replaces in place, else appends
  void append(std::string key, Value value);      ///< for readers, which know that the key is new
  bool erase(std::string_view key);

  /// Required accessors: throw Error(kBadInput) naming the key when it is missing or of another
  /// type.
  std::int64_t require_int(std::string_view key) const;
  double require_number(std::string_view key) const;
  std::string_view require_string(std::string_view key) const;

  std::int64_t int_or(std::string_view key, std::int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  std::string_view string_or(std::string_view key, std::string_view fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;

  std::string place;  ///< file name for error messages

 private:
  std::vector<KeyValue> items_;
};

}  // namespace spectralquant::gguf
