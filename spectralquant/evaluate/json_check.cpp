#include "spectralquant/evaluate/json_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "spectralquant/core/error.h"

namespace spectralquant::evaluate {
namespace {

using nlohmann::json;

/// Line and column of a byte, from 1.
std::string line_and_column(const std::string& text, std::size_t byte) {
  const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(byte, text.size()));
  const auto line = 1 + std::count(text.begin(), end, '\n');
  const auto last_break = std::find(std::make_reverse_iterator(end), text.rend(), '\n').base();
  return fmt::format("line {}, column {}", line, std::max<std::ptrdiff_t>(1, end - last_break));
}

}  // namespace

json parse_json(const std::string& text, const std::string& place, const char* fix) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    throw bad_input("this is no JSON",
                    fmt::format("{}, {}", place, line_and_column(text, error.byte)), fix);
  }
}

void JsonCheck::fail(const std::string& pointer, const std::string& problem) const {
  throw bad_input(problem, fmt::format("{}, {}", place_, pointer.empty() ? "at the top" : pointer),
                  fix_);
}

void JsonCheck::each(const json& parent, const std::string& pointer, const char* key, bool required,
                     const std::function<void(const json&, const std::string&)>& check) const {
  const std::string at = pointer + "/" + key;
  const auto found = parent.find(key);
  if (found == parent.end() || found->is_null()) {
    if (required) fail(pointer, fmt::format("there is no list \"{}\"", key));
    return;
  }
  if (!found->is_array()) fail(at, "this must be a list");
  for (std::size_t i = 0; i < found->size(); ++i) {
    const std::string item = fmt::format("{}/{}", at, i);
    if (!(*found)[i].is_object()) fail(item, "this must be an object");
    check((*found)[i], item);
  }
}

void JsonCheck::texts(const json& parent, const std::string& pointer,
                      std::initializer_list<const char*> keys) const {
  for (const char* key : keys)
    if (const auto found = parent.find(key); found == parent.end() || !found->is_string())
      fail(pointer + "/" + key, "this must be a text");
}

void JsonCheck::numbers(const json& parent, const std::string& pointer,
                        std::initializer_list<const char*> keys) const {
  for (const char* key : keys)
    if (const auto found = parent.find(key);
        found != parent.end() && !found->is_null() && !found->is_number())
      fail(pointer + "/" + key, "this must be a number");
}

void JsonCheck::intervals(const json& parent, const std::string& pointer,
                          std::initializer_list<const char*> keys) const {
  for (const char* key : keys) {
    const auto found = parent.find(key);
    if (found == parent.end() || found->is_null()) continue;
    if (!found->is_object())
      fail(pointer + "/" + key, "this must be an interval {mean, low, high}");
    numbers(*found, pointer + "/" + key, {"mean", "low", "high"});
  }
}

}  // namespace spectralquant::evaluate
