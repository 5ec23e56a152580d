#include "spectralquant/gguf/partial_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/shell_word.h"

namespace spectralquant::gguf {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEnding = ".partial";

constexpr std::uint64_t kMaxWriteBytes = 1 << 30;  // Linux writes at most 2 GiB a call

std::optional<struct stat> find_status(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return info;
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1'000'000) return fmt::format("{} bytes", bytes);
  return bytes < 1'000'000'000 ? fmt::format("{:.1f} MB ({} bytes)", bytes / 1e6, bytes)
                               : fmt::format("{:.2f} GB ({} bytes)", bytes / 1e9, bytes);
}

void refuse_inputs(const std::string& path, const std::vector<std::string>& inputs) {
  const auto own = find_status(path);
  for (const std::string& input : inputs)
    if (const auto other = find_status(input); own && other && is_same_file(*own, *other))
      throw bad_input(fmt::format("the output {} is the input {}", path, input), path,
                      "choose another name for the output");
}

/// The file that is to be replaced: where a symbolic link points to, else the path itself.
std::string resolve_target(const std::string& path) {
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  const fs::path target = fs::canonical(path, error);
  if (error)
    throw bad_input(fmt::format("{} is a symbolic link to nothing", path), path,
                    "remove the link or choose another name for the output");
  return target.string();
}

/// What is written for a target: the file behind its links, refused if it may not be written.
std::string checked_target(const std::string& target, bool overwrite,
                           const std::vector<std::string>& inputs) {
  if (target.empty()) throw bad_input("the output has no name", {}, "give a path for the output");
  const std::string resolved = resolve_target(target), folder = folder_of(resolved);
  if (const auto info = find_status(folder); info && !S_ISDIR(info->st_mode))
    throw bad_input(fmt::format("the output's folder {} is a file", folder), target,
                    "choose a folder for the output");
  else if (!info && (errno == ENOENT || errno == ENOTDIR))
    throw bad_input(fmt::format("the output's folder {} does not exist", folder), target,
                    errno == ENOENT ? "create it: mkdir -p " + shell_path(folder)
                                    : "a part of the path is a file: choose another folder");
  else if (!info)
    throw bad_input(
        fmt::format("cannot reach the output's folder {}: {}", folder, std::strerror(errno)),
        target, "check the path and its permissions");
  if (const auto info = find_status(resolved)) {
    if (S_ISDIR(info->st_mode))
      throw bad_input(fmt::format("the output {} is a folder", target), target,
                      "give the name of a file");
    if (!S_ISREG(info->st_mode))
      throw bad_input(fmt::format("the output {} is not a regular file", target), target,
                      "give the name of a file");
    refuse_inputs(resolved, inputs);
    if (!overwrite)
      throw bad_input(fmt::format("{} exists already", target), target,
                      "use --force to replace it, or choose another name");
  }
  refuse_inputs(resolved + kEnding, inputs);
  return resolved;
}

Error cannot_create(const std::string& path, int reason) {
  return bad_input(fmt::format("cannot create {}: {}", path, std::strerror(reason)), path,
                   reason == EEXIST ? "remove it if no other run is writing it"
                                    : "check the folder's permissions, or choose another folder");
}

Error busy(const std::string& path) {
  return Error(ErrorCode::kFailed, "another run is writing this file", path,
               "wait until it has finished, or choose another name");
}

/// Whether another run writes the partial file. Nobody holds a lock on one whose run was killed: it
/// is removed if so wished.
bool is_locked(const std::string& path, bool remove_stale) {
  const int left = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (left < 0) {  // a symbolic link is removed, never followed
    if (errno == ELOOP && remove_stale) ::unlink(path.c_str());
    return false;
  }
  const bool locked = ::flock(left, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (!locked && remove_stale) ::unlink(path.c_str());
  ::close(left);
  return locked;
}

}  // namespace

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

PartialFile::PartialFile(const std::string& target, bool overwrite,
                         const std::vector<std::string>& inputs)
    : target_(checked_target(target, overwrite, inputs)),
      path_(target_ + kEnding),
      overwrite_(overwrite) {
  create();
}

void PartialFile::require_writable(const std::string& target, bool overwrite,
                                   const std::vector<std::string>& inputs) {
  const std::string resolved = checked_target(target, overwrite, inputs), path = resolved + kEnding;
  if (is_locked(path, /*remove_stale=*/false)) throw busy(path);
  struct stat left {};
  if (::lstat(path.c_str(), &left) == 0) {  // what a killed run left is not touched yet
    if (::faccessat(AT_FDCWD, folder_of(resolved).c_str(), W_OK | X_OK, AT_EACCESS) != 0)
      throw cannot_create(path, errno);
    return;
  }
  const PartialFile tried(target, overwrite, inputs);  // removed at once
}

void PartialFile::create() {
  if (is_locked(path_, /*remove_stale=*/true)) throw busy(path_);
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) throw cannot_create(path_, errno);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(std::exchange(fd_, -1));
    throw busy(path_);
  }
}

PartialFile::~PartialFile() {
  if (fd_ < 0) return;
  ::unlink(path_.c_str());
  ::close(fd_);
}

void PartialFile::fail_to_write(int reason, std::uint64_t size_bytes) const {
  if (reason == ENOSPC || reason == EDQUOT) {
    struct statvfs info {};
    const std::uint64_t free_bytes =
        ::fstatvfs(fd_, &info) == 0 ? static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize : 0;
    throw bad_input(reason == EDQUOT ? fmt::format("the disk quota is used up: {} are needed",
                                                   size_text(size_bytes))
                                     : fmt::format("the disk is full: {} are needed, {} are free",
                                                   size_text(size_bytes), size_text(free_bytes)),
                    target_, "free some space, or choose a folder on another disk");
  }
  if (reason == EFBIG)
    throw Error(ErrorCode::kFailed,
                fmt::format("a file of {} is larger than this disk or user may hold",
                            size_text(size_bytes)),
                target_, "raise the limit (ulimit -f), or choose a folder on another disk");
  throw Error(ErrorCode::kFailed,
              fmt::format("cannot write {} bytes: {}", size_bytes, std::strerror(reason)), path_,
              "check the disk");
}

void PartialFile::reserve(std::uint64_t size_bytes) {
  // Past this limit the kernel does not return an error but kills the process (SIGXFSZ).
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      size_bytes > limit.rlim_cur)
    fail_to_write(EFBIG, size_bytes);

  int reason = 0;
  do {
    reason = ::fallocate(fd_, 0, 0, static_cast<off_t>(size_bytes)) == 0 ? 0 : errno;
  } while (reason == EINTR);
  // network file systems: a look at the free space must do
  if (reason == EOPNOTSUPP || reason == ENOSYS) {
    struct statvfs info {};
    if (::fstatvfs(fd_, &info) == 0 &&
        static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize < size_bytes)
      fail_to_write(ENOSPC, size_bytes);
    reason = ::ftruncate(fd_, static_cast<off_t>(size_bytes)) == 0 ? 0 : errno;
  }
  if (reason != 0) fail_to_write(reason, size_bytes);
}

void PartialFile::write(std::uint64_t offset_bytes, const void* data, std::uint64_t size_bytes) {
  const char* next = static_cast<const char*>(data);
  while (size_bytes > 0) {
    const ssize_t n =
        ::pwrite(fd_, next, std::min(size_bytes, kMaxWriteBytes), static_cast<off_t>(offset_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_to_write(n < 0 ? errno : EIO, size_bytes);
    next += n;
    offset_bytes += static_cast<std::uint64_t>(n);
    size_bytes -= static_cast<std::uint64_t>(n);
  }
}

void PartialFile::sync() {
  if (::fsync(fd_) != 0) fail_to_write(errno, 0);
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
}

void PartialFile::rename_to_target() {
  // Without overwrite, a file that appeared in the meantime is not lost; file systems without that
  // promise rename plainly.
  int reason = EINVAL;
  if (!overwrite_)
    reason = ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) == 0
                 ? 0
                 : errno;
  if (reason == EEXIST)
    throw bad_input(fmt::format("{} was created by someone else in the meantime", target_), target_,
                    "choose another name, or use --force");
  if (reason != 0) reason = ::rename(path_.c_str(), target_.c_str()) == 0 ? 0 : errno;
  if (reason != 0)
    throw Error(ErrorCode::kFailed,
                fmt::format("cannot rename {} to {}: {}", path_, target_, std::strerror(reason)),
                target_, "check the folder's permissions");
  if (const int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      folder >= 0) {
    // the new name survives a power cut; some file systems cannot, which is no reason to fail
    ::fsync(folder);
    ::close(folder);
  }
  ::close(std::exchange(fd_, -1));
}

void PartialFile::finish(std::initializer_list<std::string_view> parts) {
  std::uint64_t size_bytes = 0, offset_bytes = 0;
  for (const std::string_view part : parts) size_bytes += part.size();
  reserve(size_bytes);
  for (const std::string_view part : parts) {
    write(offset_bytes, part.data(), part.size());
    offset_bytes += part.size();
  }
  sync();
  rename_to_target();
}

}  // namespace spectralquant::gguf
