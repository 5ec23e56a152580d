#include "spectralquant/gguf/metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "spectralquant/core/error.h"

namespace spectralquant::gguf {
namespace {

const Value& require(const Metadata& metadata, std::string_view key) {
  const Value* value = metadata.find(key);
  if (!value)
    throw bad_input(fmt::format("metadata key {} is missing", key), metadata.place,
                    "convert the model again with a current converter");
  return *value;
}

Error wrong_type(const Metadata& metadata, std::string_view key, const Value& value,
                 std::string_view wanted) {
  return bad_input(fmt::format("metadata key {} is {} ({}), not {}", key, value.to_display(),
                               value_type_name(value.type()), wanted),
                   metadata.place, "convert the model again with a current converter");
}

}  // namespace

// The list is searched from the front: files hold a few dozen keys.
const Value* Metadata::find(std::string_view key) const {
  const auto it = std::find_if(items_.begin(), items_.end(),
                               [&](const KeyValue& item) { return item.key == key; });
  return it == items_.end() ? nullptr : &it->value;
}

void Metadata::set(std::string_view key, Value value) {
  const auto it = std::find_if(items_.begin(), items_.end(),
                               [&](const KeyValue& item) { return item.key == key; });
  if (it == items_.end())
    items_.push_back({std::string(key), std::move(value)});
  else
    it->value = std::move(value);
}

void Metadata::append(std::string key, Value value) {
  items_.push_back({std::move(key), std::move(value)});
}

bool Metadata::erase(std::string_view key) {
  return std::erase_if(items_, [&](const KeyValue& item) { return item.key == key; }) > 0;
}

std::int64_t Metadata::require_int(std::string_view key) const {
  const Value& value = require(*this, key);
  if (const auto number = value.as_int()) return *number;
  throw wrong_type(*this, key, value, "an integer");
}

double Metadata::require_number(std::string_view key) const {
  const Value& value = require(*this, key);
  if (const auto number = value.as_number()) return *number;
  throw wrong_type(*this, key, value, "a number");
}

std::string_view Metadata::require_string(std::string_view key) const {
  const Value& value = require(*this, key);
  if (const auto text = value.as_string()) return *text;
  throw wrong_type(*this, key, value, "a string");
}

// An absent key takes the fallback; one that is there with another type is an error all the same.
std::int64_t Metadata::int_or(std::string_view key, std::int64_t fallback) const {
  return find(key) ? require_int(key) : fallback;
}
double Metadata::number_or(std::string_view key, double fallback) const {
  return find(key) ? require_number(key) : fallback;
}

std::string_view Metadata::string_or(std::string_view key, std::string_view fallback) const {
  return find(key) ? require_string(key) : fallback;
}

bool Metadata::bool_or(std::string_view key, bool fallback) const {
  const Value* value = find(key);
  if (!value) return fallback;
  if (const auto flag = value->as_bool()) return *flag;
  throw wrong_type(*this, key, *value, "true or false");
}

}  // namespace spectralquant::gguf
