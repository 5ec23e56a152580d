#pragma once
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace spectralquant::test {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// A folder of its own for each test, removed afterwards.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "spectralquant-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct Result {
  int exit_code = -1;  ///< 128 + signal when killed
  std::string out, err;
};

/// The real binary, started as a shell would start it.
class Process {
 public:
  Process(const std::vector<std::string>& arguments, rlim_t max_file_bytes = RLIM_INFINITY,
          const std::map<std::string, std::string>& environment = {}, bool as_nobody = false) {
    std::fflush(nullptr);  // or the child would write the parent's words once more
    pid_ = fork();
    if (pid_ != 0) return;
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    freopen((folder_ / "out").c_str(), "w", stdout);
    freopen((folder_ / "err").c_str(), "w", stderr);
    // nothing is kept from one run to the next unless a test asks for it
    setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
    if (max_file_bytes != RLIM_INFINITY) {
      const rlimit limit{max_file_bytes, max_file_bytes};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    // root may write anywhere
    if (as_nobody && geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(126);
    std::vector<char*> argv = {const_cast<char*>(SQ_BINARY)};
    for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(SQ_BINARY, argv.data());
    _exit(127);
  }

  void signal(int number) { kill(pid_, number); }

  Result wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    Result result;
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.out = read_file(folder_ / "out");
    result.err = read_file(folder_ / "err");
    return result;
  }

 private:
  TemporaryFolder folder_;
  pid_t pid_;
};

inline Result run(const std::vector<std::string>& arguments) { return Process(arguments).wait(); }

}  // namespace spectralquant::test
