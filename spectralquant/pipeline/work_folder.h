#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spectralquant::pipeline {

/// Where a job keeps what it has finished until its output stands: the folder OUT.gguf.work/ beside
/// OUT.gguf.
///
/// A killed run leaves it behind; the same command finds it and continues. Its file `job.json` says
/// which job it belongs to. Nothing is created before the first write().
class WorkFolder {
 public:
  /// What the constructor refuses, without changing anything.
  static void require_usable(const std::string& output, const std::string& key, bool start_over);

  /// Bytes of what lies in the folder of an output; 0 without one.
  static std::uint64_t size_bytes(const std::string& output);

  /// `key`: hash of everything that decides the result; `about`: the same as JSON, for people who
  /// look into the folder.
  ///
  /// Errors   Error(kBadInput) if the folder holds another job's work, unless `start_over`, which
  ///          removes it; or if it cannot be written.
  WorkFolder(const std::string& output, std::string key, std::string about, bool start_over);

  const std::string& path() const { return path_; }
  bool continued() const { return continued_; }  ///< the same job was here before

  /// Path of a finished file of this job; nullopt if there is none.
  std::optional<std::string> find(std::string_view name) const;
  /// Bytes of a finished file; nullopt if there is none, or it cannot be read.
  std::optional<std::string> read(std::string_view name) const;
  /// Path for a file that is to be written, atomically, by the caller. Makes the folder.
  std::string file(std::string_view name);
  /// Writes a file atomically, replacing an older one.  Errors  Error(kBadInput) if the disk is
  /// full.
  void write(std::string_view name, std::string_view bytes);
  /// The job is done: the folder and all in it are removed.
  void remove();

 private:
  std::string path_, key_, about_;
  bool continued_ = false, made_ = false;
};

}  // namespace spectralquant::pipeline
