#include "spectralquant/gguf/mapping.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "spectralquant/core/error.h"

namespace spectralquant::gguf {

Mapping::Mapping(const std::string& path, const std::string& fix) {
  // a FIFO must not block
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    throw bad_input(fmt::format("cannot open {}: {}", path, std::strerror(errno)), path,
                    "check the path and its permissions");
  struct stat info {};
  const bool known = ::fstat(fd, &info) == 0;
  if (!known || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw bad_input(
        fmt::format("{} is {}", path,
                    known && S_ISDIR(info.st_mode) ? "a folder, not a file" : "not a regular file"),
        path, fix);
  }
  size_ = static_cast<std::uint64_t>(info.st_size);
  void* address = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  const int reason = errno;
  ::close(fd);
  if (address == MAP_FAILED)
    throw Error(ErrorCode::kFailed,
                fmt::format("cannot map {} ({} bytes): {}", path, size_, std::strerror(reason)),
                path, "raise the address-space limit (ulimit -v)");
  data_ = static_cast<const std::byte*>(address);
}

Mapping::~Mapping() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void leave_memory(const std::byte* data, std::uint64_t size) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(data),
             first = (begin + page - 1) / page * page,
             last = (begin + static_cast<std::uintptr_t>(size)) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace spectralquant::gguf
