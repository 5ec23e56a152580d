#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace spectralquant {

/// XXH3-128 over a stream of bytes, printed as 32 hexadecimal digits.
///
/// A fingerprint for provenance and caches, not a signature.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  Hasher& update(const void* data, std::size_t size_bytes);
  Hasher& update(std::string_view text) { return update(text.data(), text.size()); }
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_hex(std::string_view bytes);

/// Hash of a whole file's bytes.  Errors  Error(kBadInput) if it cannot be read.
std::string hash_file(const std::string& path);

}  // namespace spectralquant
