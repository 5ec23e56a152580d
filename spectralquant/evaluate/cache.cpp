#include "spectralquant/evaluate/cache.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/gguf/partial_file.h"

namespace spectralquant::evaluate {
namespace {

constexpr std::string_view kCacheMagic = "SPECTRALQUANT CACHE 1\n";

void append_length(std::string& out, std::uint64_t n) {
  out.append(reinterpret_cast<const char*>(&n), sizeof n);
}

/// All of an entry but its bytes.
std::string head_of(std::string_view key, std::string_view bytes) {
  std::string head(kCacheMagic);
  append_length(head, key.size());
  head += key;
  append_length(head, bytes.size());
  return head + hash_hex(bytes);
}

}  // namespace

std::string Cache::path_of(std::string_view kind, std::string_view key) const {
  return fmt::format("{}/{}-{}", folder_, kind, hash_hex(key));
}

std::optional<std::string> Cache::find(std::string_view kind, std::string_view key) const {
  if (folder_.empty()) return std::nullopt;
  std::ifstream in(path_of(kind, key), std::ios::binary | std::ios::ate);
  if (!in) return std::nullopt;
  const auto size = static_cast<std::uint64_t>(in.tellg()),
             head_size = static_cast<std::uint64_t>(head_of(key, {}).size());
  if (size < head_size) return std::nullopt;
  std::string head(head_size, '\0'), bytes(size - head_size, '\0');
  in.seekg(0);
  if (!in.read(head.data(), static_cast<std::streamsize>(head.size())) ||
      !in.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    return std::nullopt;
  if (head != head_of(key, bytes)) return std::nullopt;  // magic, key, length and hash at once
  return bytes;
}

void Cache::store(std::string_view kind, std::string_view key, std::string_view bytes) try {
  if (folder_.empty()) return;
  std::filesystem::create_directories(folder_);
  gguf::PartialFile(path_of(kind, key), /*overwrite=*/true, {})
      .finish({head_of(key, bytes), bytes});
} catch (const Error& error) {
  if (problem_.empty()) problem_ = error.problem();
} catch (const std::filesystem::filesystem_error& error) {
  if (problem_.empty())
    problem_ = fmt::format("cannot make the folder {}: {}", folder_, error.code().message());
}

std::string default_cache_folder() {
  if (const char* own = std::getenv("XDG_CACHE_HOME"); own && *own == '/')
    return std::string(own) + "/spectralquant";
  if (const char* home = std::getenv("HOME"); home && *home)
    return std::string(home) + "/.cache/spectralquant";
  return {};
}

}  // namespace spectralquant::evaluate
