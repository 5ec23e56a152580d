#include "spectralquant/calibrate/spill.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "spectralquant/core/error.h"

namespace spectralquant::calibrate {
namespace {

/// An open file without a name, closed at the end.
class NamelessFile {
 public:
  explicit NamelessFile(const std::string& folder) : folder_(folder) {
    std::string path = folder + "/moments-XXXXXX";
    fd_ = ::mkstemp(path.data());
    if (fd_ < 0) throw failure("cannot create a file in " + folder);
    ::unlink(path.c_str());
  }
  ~NamelessFile() { ::close(fd_); }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;

  void write(const char* data, std::size_t size) const {
    while (size > 0) {
      const ssize_t n = ::write(fd_, data, std::min(size, std::size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw failure(fmt::format("cannot write {} bytes", size));
      data += n;
      size -= static_cast<std::size_t>(n);
    }
  }

  /// Private: what a caller writes into the tensor stays its own.
  void* map(std::size_t size) const {
    void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd_, 0);
    if (address == MAP_FAILED) throw failure(fmt::format("cannot map {} bytes", size));
    return address;
  }

 private:
  Error failure(const std::string& what) const {
    const int reason = errno;
    return bad_input(fmt::format("{}: {}", what, std::strerror(reason)), folder_,
                     reason == ENOSPC
                         ? "the disk is full: moments of the model are kept there; free some space"
                         : "check the folder's permissions and the disk");
  }

  const std::string& folder_;
  int fd_ = -1;
};

}  // namespace

torch::Tensor Spill::put(const torch::Tensor& tensor) const {
  if (folder.empty() || !tensor.defined() || tensor.numel() == 0 || !tensor.device().is_cpu())
    return tensor;
  const torch::Tensor values = tensor.detach().contiguous();
  const NamelessFile file(folder);
  file.write(static_cast<const char*>(values.data_ptr()), values.nbytes());
  const std::size_t size = values.nbytes();
  return torch::from_blob(
      file.map(size), values.sizes(), [size](void* address) { ::munmap(address, size); },
      values.options());
}

torch::Tensor Spill::take(const torch::Tensor& kept) const {
  if (folder.empty() || !kept.defined() || !kept.device().is_cpu() || kept.numel() == 0)
    return kept;
  torch::Tensor copy = kept.clone();
  ::madvise(kept.data_ptr(), kept.nbytes(), MADV_DONTNEED);
  return copy;
}

}  // namespace spectralquant::calibrate
