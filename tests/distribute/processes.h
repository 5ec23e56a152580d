#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <vector>

#include "distribute/free_port.h"
#include "spectralquant/distribute/group.h"

namespace spectralquant::distribute {

/// Runs body in `size` processes that form a group. Returns their exit codes: what body returned,
/// 99 if it threw, 128 + signal.
///
/// The caller must not have started threads of torch before.
inline std::vector<int> run_processes(int size, const std::function<int(Group&)>& body) {
  Launch launch;
  launch.size = launch.local_size = size;
  launch.address = "127.0.0.1";
  launch.port = free_port();
  std::vector<pid_t> pids;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      int code = 99;
      try {
        launch.rank = launch.local_rank = rank;
        Group group = Group::join(launch, torch::kCPU);
        code = body(group);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "process %d: %s\n", rank, error.what());
      }
      ::_exit(code);
    }
    pids.push_back(pid);
  }
  std::vector<int> codes;
  for (const pid_t pid : pids) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return codes;
}

}  // namespace spectralquant::distribute
