#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace spectralquant::distribute {

/// What a launcher told this process about the processes it belongs to.
struct Launch {
  int rank = 0, size = 1;  ///< this process, of how many
  /// the same on this machine; local_size is 1 where the launcher does not tell
  int local_rank = 0, local_size = 1;
  std::string address;  ///< where process 0 is found
  std::uint16_t port = 0;
  bool store_runs_elsewhere = false;  ///< torchrun keeps the meeting point itself
  /// of keys at the meeting point: another for each restart by torchrun
  std::string prefix;
};

/// Reads the environment as torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK), Open
/// MPI's mpirun (OMPI_COMM_WORLD_*), srun (SLURM_PROCID, SLURM_STEP_NUM_TASKS, …) and MPICH's or
/// Intel's mpirun (PMI_*) set it, in this order. None of them: one process.
///
/// MASTER_ADDR and MASTER_PORT hold for all. Without them: srun's first node and a port made from
/// the job's number; mpirun on one machine 127.0.0.1 and kDefaultPort. `variable`: value of an
/// environment variable, nullptr if it is not set.
/// Errors   Error(kBadUsage) for values that are missing, no numbers, or contradict each other.
Launch read_launch(const std::function<const char*(const char*)>& variable);

inline constexpr std::uint16_t kDefaultPort = 29500;  ///< as torchrun's

}  // namespace spectralquant::distribute
