#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace spectralquant::gguf {

struct Tensor;

/// A whole file, mapped read-only.
///
/// Errors   Error(kBadInput): absent, not readable, or no regular file; then `fix` says what to
///          give. Error(kFailed): no room in the address space.
/// Threads  const members may be called from any thread.
class Mapping {
 public:
  Mapping(const std::string& path, const std::string& fix);
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&&) = delete;

  const std::byte* data() const { return data_; }
  std::uint64_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

/// The pages that lie whole in a part of a mapping leave memory, where they would count as this
/// program's; reading them again takes them from the system's cache or the disk.
void leave_memory(const std::byte* data, std::uint64_t size);
/// The same for rows of a File's tensor.
void leave_memory(const Tensor& tensor, std::uint64_t first_row, std::uint64_t n_rows);

}  // namespace spectralquant::gguf
