#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace spectralquant::gguf {

/// The folder that a path names a file in: "." for a name alone.
std::string folder_of(const std::string& path);

/// A file that becomes visible under its name only when it is whole: PATH.partial, locked,
/// reserved, synced, renamed.
///
/// Destroyed before rename_to_target() it removes the partial file.
///
/// Errors   Error(kBadInput) when the target may not be written (see Writer), its folder cannot be
///          written or the disk is full; Error(kFailed) when writing fails otherwise.
/// Threads  write() may be called from several threads for different bytes.
class PartialFile {
 public:
  PartialFile(const std::string& target, bool overwrite, const std::vector<std::string>& inputs);

  /// Refuses what the constructor would refuse, before long work: the partial file is created and
  /// removed at once. One that a killed run left stays.
  static void require_writable(const std::string& target, bool overwrite,
                               const std::vector<std::string>& inputs);

  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  const std::string& path() const { return path_; }  ///< of the partial file

  /// Gives the file its final size, with the disk space behind it; the bytes read as zero.
  void reserve(std::uint64_t size_bytes);

  void write(std::uint64_t offset_bytes, const void* data, std::uint64_t size_bytes);

  /// Brings everything to the disk, and drops it from memory so that reading back means reading the
  /// disk.
  void sync();

  void rename_to_target();

  /// All of that for a file whose bytes are there already, in parts one after the other.
  void finish(std::initializer_list<std::string_view> parts);

 private:
  void create();
  [[noreturn]] void fail_to_write(int reason, std::uint64_t size_bytes) const;

  std::string target_, path_;
  bool overwrite_;
  int fd_ = -1;
};

}  // namespace spectralquant::gguf
