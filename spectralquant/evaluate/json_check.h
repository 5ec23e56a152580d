#pragma once
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

namespace spectralquant::evaluate {

/// Parses JSON that this program printed.
/// Errors   Error(kBadInput) with line and column; `fix` says what to give.
nlohmann::json parse_json(const std::string& text, const std::string& place, const char* fix);

/// A document being checked: what is of the wrong kind is refused with its path inside,
/// "/models/2/name".
class JsonCheck {
 public:
  /// place: of the document; fix: what to give in its place
  JsonCheck(std::string place, const char* fix) : place_(std::move(place)), fix_(fix) {}

  [[noreturn]] void fail(const std::string& pointer, const std::string& problem) const;
  /// Objects of the list `key`; none if it is absent and may be.
  void each(const nlohmann::json& parent, const std::string& pointer, const char* key,
            bool required,
            const std::function<void(const nlohmann::json&, const std::string&)>& check) const;
  void texts(const nlohmann::json& parent, const std::string& pointer,
             std::initializer_list<const char*> keys) const;
  /// Numbers, or null, or absent.
  void numbers(const nlohmann::json& parent, const std::string& pointer,
               std::initializer_list<const char*> keys) const;
  /// {mean, low, high}, or null, or absent.
  void intervals(const nlohmann::json& parent, const std::string& pointer,
                 std::initializer_list<const char*> keys) const;

 private:
  std::string place_;
  const char* fix_;
};

}  // namespace spectralquant::evaluate
