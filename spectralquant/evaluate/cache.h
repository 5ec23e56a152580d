#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace spectralquant::evaluate {

/// Results kept in a folder under what decides them, so that nothing is computed twice.
///
///     if (auto bytes = cache.find("scores", key)) …
///     cache.store("scores", key, bytes);
///
/// An entry is a file of its own: magic, length and text of the key, length and XXH3-128 of the
/// bytes, the bytes. It is written under another name and renamed when whole, so a killed run
/// leaves nothing half. find() checks all of it; what does not fit counts as absent.
///
/// Errors   none: a cache that cannot be written is no reason to lose a result. problem() tells the
///          first one.
/// Threads  several processes may use one folder; an object belongs to one thread.
class Cache {
 public:
  /// An empty name keeps nothing. The folder is made when something is stored.
  explicit Cache(std::string folder = {}) : folder_(std::move(folder)) {}

  std::optional<std::string> find(std::string_view kind, std::string_view key) const;
  void store(std::string_view kind, std::string_view key, std::string_view bytes);

  const std::string& problem() const { return problem_; }

 private:
  std::string path_of(std::string_view kind, std::string_view key) const;

  std::string folder_, problem_;
};

/// $XDG_CACHE_HOME/spectralquant, or ~/.cache/spectralquant; "" where neither is set.
/// Source  XDG Base Directory Specification: XDG_CACHE_HOME counts only if it is absolute.
std::string default_cache_folder();

}  // namespace spectralquant::evaluate
