#include "spectralquant/core/json_text.h"

#include <nlohmann/json.hpp>

#include "spectralquant/core/printable.h"

namespace spectralquant {
namespace {

/// JSON escapes control characters below U+0020 only. printable() writes the others as \u007f,
/// which JSON reads as the same character.
std::string escaped(const std::string& json) { return printable(json, Breaks::kKept); }

}  // namespace

std::string json_text(const nlohmann::json& value, int indent) {
  return escaped(value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string json_text(const nlohmann::ordered_json& value, int indent) {
  return escaped(value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string valid_utf8(std::string_view text) {
  return nlohmann::json::parse(json_text(nlohmann::json(text))).get<std::string>();
}

}  // namespace spectralquant
