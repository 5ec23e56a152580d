#include "spectralquant/gguf/value.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/utf8.h"

namespace spectralquant::gguf {
namespace {

constexpr std::size_t kArrayHead = 4 + 8;  // element type, element count

template <typename T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string string_bytes(std::string_view text) {
  return bytes_of<std::uint64_t>(text.size()).append(text);
}

/// Calls visit(number) with a scalar's value in its own C++ type; false for strings and arrays.
template <typename Visit>
bool visit_scalar(ValueType type, const char* bytes, Visit visit) {
  switch (type) {
    case ValueType::kUint8:
      visit(load<std::uint8_t>(bytes));
      return true;
    case ValueType::kInt8:
      visit(load<std::int8_t>(bytes));
      return true;
    case ValueType::kUint16:
      visit(load<std::uint16_t>(bytes));
      return true;
    case ValueType::kInt16:
      visit(load<std::int16_t>(bytes));
      return true;
    case ValueType::kUint32:
      visit(load<std::uint32_t>(bytes));
      return true;
    case ValueType::kInt32:
      visit(load<std::int32_t>(bytes));
      return true;
    case ValueType::kFloat32:
      visit(load<float>(bytes));
      return true;
    case ValueType::kBool:
      visit(load<std::uint8_t>(bytes) != 0);
      return true;
    case ValueType::kUint64:
      visit(load<std::uint64_t>(bytes));
      return true;
    case ValueType::kInt64:
      visit(load<std::int64_t>(bytes));
      return true;
    case ValueType::kFloat64:
      visit(load<double>(bytes));
      return true;
    case ValueType::kString:
    case ValueType::kArray:
      return false;
  }
  return false;
}

std::string scalar_text(ValueType type, const char* bytes) {
  std::string text;
  visit_scalar(type, bytes, [&](auto number) { text = fmt::format("{}", number); });
  return text;
}

}  // namespace

std::string_view value_type_name(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
      return "u8";
    case ValueType::kInt8:
      return "i8";
    case ValueType::kUint16:
      return "u16";
    case ValueType::kInt16:
      return "i16";
    case ValueType::kUint32:
      return "u32";
    case ValueType::kInt32:
      return "i32";
    case ValueType::kFloat32:
      return "f32";
    case ValueType::kBool:
      return "bool";
    case ValueType::kString:
      return "string";
    case ValueType::kArray:
      return "array";
    case ValueType::kUint64:
      return "u64";
    case ValueType::kInt64:
      return "i64";
    case ValueType::kFloat64:
      return "f64";
  }
  return "unknown";
}

bool is_value_type(std::uint32_t number) {
  return number <= static_cast<std::uint32_t>(ValueType::kFloat64);
}

std::size_t scalar_bytes(ValueType type) {
  std::size_t size = 0;
  static constexpr char kZeros[8] = {};
  visit_scalar(type, kZeros, [&](auto number) { size = sizeof number; });
  return size;
}

ValueExtent find_extent(ValueType type, std::string_view bytes) {
  auto string_extent = [](std::string_view rest) -> ValueExtent {
    if (rest.size() < 8) return {0, "the length of a string is cut off"};
    const auto length = load<std::uint64_t>(rest.data());
    if (length > rest.size() - 8) return {0, "a string is longer than the rest of the file"};
    return {8 + length};
  };

  if (const std::size_t size = scalar_bytes(type); size != 0)
    return bytes.size() < size ? ValueExtent{0, "the value is cut off"} : ValueExtent{size};
  if (type == ValueType::kString) return string_extent(bytes);

  if (bytes.size() < kArrayHead) return {0, "the head of an array is cut off"};
  const auto element_number = load<std::uint32_t>(bytes.data());
  const auto count = load<std::uint64_t>(bytes.data() + 4);
  if (!is_value_type(element_number)) return {0, "an array has elements of an unknown type"};
  const auto element = static_cast<ValueType>(element_number);
  if (element == ValueType::kArray) return {0, "arrays of arrays are not supported"};
  std::uint64_t position = kArrayHead;
  if (const std::size_t size = scalar_bytes(element); size != 0) {
    if (count > (bytes.size() - position) / size)
      return {position, "an array has more elements than the rest of the file"};
    return {position + count * size};
  }
  if (count > (bytes.size() - position) / 8)
    return {position, "an array has more elements than the rest of the file"};
  for (std::uint64_t i = 0; i < count; ++i) {
    const ValueExtent one = string_extent(bytes.substr(position));
    if (one.problem) return {position, one.problem};
    position += one.size_bytes;
  }
  return {position};
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t n = utf8_sequence(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

Value::Value(ValueType type, std::string bytes) : type_(type), bytes_(std::move(bytes)) {
  if (!is_value_type(static_cast<std::uint32_t>(type)))
    throw bad_input(
        fmt::format("metadata value type {} is unknown", static_cast<std::uint32_t>(type)));
  const ValueExtent extent = find_extent(type_, bytes_);
  if (extent.problem)
    throw bad_input(
        fmt::format("bytes are no {} value: {}", value_type_name(type_), extent.problem));
  if (extent.size_bytes != bytes_.size())
    throw bad_input(fmt::format("a {} value of {} bytes is followed by {} more",
                                value_type_name(type_), extent.size_bytes,
                                bytes_.size() - extent.size_bytes));
}

Value Value::of_u32(std::uint32_t v) { return Value(ValueType::kUint32, bytes_of(v)); }
Value Value::of_u64(std::uint64_t v) { return Value(ValueType::kUint64, bytes_of(v)); }
Value Value::of_f32(float v) { return Value(ValueType::kFloat32, bytes_of(v)); }
Value Value::of_bool(bool v) { return Value(ValueType::kBool, bytes_of<std::uint8_t>(v)); }
Value Value::of_string(std::string_view v) { return Value(ValueType::kString, string_bytes(v)); }

Value Value::of_strings(const std::vector<std::string>& v) {
  std::string bytes =
      bytes_of(static_cast<std::uint32_t>(ValueType::kString)) + bytes_of<std::uint64_t>(v.size());
  for (const std::string& text : v) bytes += string_bytes(text);
  return Value(ValueType::kArray, std::move(bytes));
}

std::optional<std::int64_t> Value::as_int() const {
  std::optional<std::int64_t> result;
  visit_scalar(type_, bytes_.data(), [&](auto number) {
    if constexpr (std::is_same_v<decltype(number), bool>) {
      result = number;
    } else if constexpr (std::is_integral_v<decltype(number)>) {
      if (std::in_range<std::int64_t>(number)) result = static_cast<std::int64_t>(number);
    }
  });
  return result;
}

std::optional<double> Value::as_number() const {
  std::optional<double> result;
  visit_scalar(type_, bytes_.data(), [&](auto number) {
    if constexpr (!std::is_same_v<decltype(number), bool>) result = static_cast<double>(number);
  });
  return result;
}

std::optional<bool> Value::as_bool() const {
  if (type_ != ValueType::kBool) return std::nullopt;
  return bytes_[0] != 0;
}

std::optional<std::string_view> Value::as_string() const {
  if (type_ != ValueType::kString) return std::nullopt;
  return std::string_view(bytes_).substr(8);
}

ValueType Value::element_type() const {
  return is_array() ? static_cast<ValueType>(load<std::uint32_t>(bytes_.data())) : type_;
}

std::size_t Value::array_size() const {
  return is_array() ? load<std::uint64_t>(bytes_.data() + 4) : 0;
}

std::vector<std::string_view> Value::strings() const {
  std::vector<std::string_view> result;
  if (!is_array() || element_type() != ValueType::kString) return result;
  result.reserve(array_size());
  std::size_t position = kArrayHead;
  for (std::size_t i = 0, n = array_size(); i < n; ++i) {
    const auto length = load<std::uint64_t>(bytes_.data() + position);
    result.push_back(std::string_view(bytes_).substr(position + 8, length));
    position += 8 + length;
  }
  return result;
}

std::vector<double> Value::numbers() const {
  std::vector<double> result;
  const std::size_t size = is_array() ? scalar_bytes(element_type()) : 0;
  if (size == 0) return result;
  result.reserve(array_size());
  for (std::size_t i = 0, n = array_size(); i < n; ++i)
    visit_scalar(element_type(), bytes_.data() + kArrayHead + i * size,
                 [&](auto number) { result.push_back(static_cast<double>(number)); });
  return result;
}

std::string Value::to_display(std::size_t max_elements) const {
  if (const auto text = as_string()) return std::string(*text);
  if (!is_array()) return scalar_text(type_, bytes_.data());

  const std::size_t n = array_size();
  if (element_type() == ValueType::kString) {
    if (n > max_elements) return fmt::format("[{} strings]", n);
    std::string text;
    for (const std::string_view one : strings())
      text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", one);
    return "[" + text + "]";
  }
  const std::size_t size = scalar_bytes(element_type());
  std::string text;
  for (std::size_t i = 0; i < n && i < max_elements; ++i)
    text +=
        (i == 0 ? "" : ", ") + scalar_text(element_type(), bytes_.data() + kArrayHead + i * size);
  return n > max_elements ? fmt::format("[{}{}…] ({} x {})", text, text.empty() ? "" : ", ", n,
                                        value_type_name(element_type()))
                          : "[" + text + "]";
}

}  // namespace spectralquant::gguf
