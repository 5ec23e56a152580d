#include "spectralquant/distribute/launch.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "spectralquant/core/error.h"

namespace spectralquant::distribute {
namespace {

using Variable = std::function<const char*(const char*)>;

/// Ports below are often taken by services, ports above by connections the system makes.
constexpr std::int64_t kFirstJobPort = 15000, kJobPorts = 15000;

Error wrong(std::string problem) {
  return Error(ErrorCode::kBadUsage, std::move(problem), "environment of the process",
               "start all processes with torchrun --no-python, srun or mpirun, or unset RANK and "
               "WORLD_SIZE to run alone");
}

std::optional<std::int64_t> number(const Variable& variable, const char* name) {
  const char* text = variable(name);
  if (!text || !*text) return std::nullopt;
  std::int64_t value = 0;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc{} || end != view.data() + view.size() || value < 0)
    throw wrong(fmt::format("{} is \"{}\", not a number", name, view));
  return value;
}

/// Names one launcher's variables; local ones may be missing.
struct Names {
  const char *rank, *size, *local_rank, *local_size;
};

constexpr Names kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    // Of the step, not of the job: a batch script's own commands see a job of many tasks but are
    // started once.
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", nullptr},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

/// First host of a Slurm list: "node[07-12,15],x3" → "node07".
std::string first_host(std::string_view list) {
  const std::size_t bracket = list.find_first_of("[,");
  std::string host(list.substr(0, bracket));
  if (bracket != std::string_view::npos && list[bracket] == '[') {
    const std::string_view rest = list.substr(bracket + 1);
    host += rest.substr(0, rest.find_first_of("-,]"));
  }
  return host;
}

bool by_slurm(const Names& names) { return std::string_view(names.rank) == "SLURM_PROCID"; }

void find_address(const Variable& variable, const Names& names, Launch& launch) {
  if (const char* address = variable("MASTER_ADDR"); address && *address) {
    launch.address = address;
  } else if (const char* nodes = variable("SLURM_STEP_NODELIST");
             by_slurm(names) && nodes && *nodes) {
    launch.address = first_host(nodes);
  } else if (launch.local_size == launch.size) {
    launch.address = "127.0.0.1";
  } else {
    throw Error(ErrorCode::kBadUsage,
                fmt::format("{} processes were started, but not where process 0 runs is known",
                            launch.size),
                "environment of the process",
                "set MASTER_ADDR to the host of process 0, e.g. mpirun -x MASTER_ADDR=$(hostname)");
  }
  std::optional<std::int64_t> port = number(variable, "MASTER_PORT");
  if (!port && by_slurm(names)) {
    port = kFirstJobPort + (number(variable, "SLURM_JOB_ID").value_or(0) * 31 +
                            number(variable, "SLURM_STEP_ID").value_or(0)) %
                               kJobPorts;
  }
  if (port && (*port < 1 || *port > 65535)) throw wrong(fmt::format("MASTER_PORT is {}", *port));
  launch.port = static_cast<std::uint16_t>(port.value_or(kDefaultPort));
}

}  // namespace

Launch read_launch(const Variable& variable) {
  Launch launch;
  for (const Names& names : kLaunchers) {
    const auto rank = number(variable, names.rank), size = number(variable, names.size);
    if (!rank && !size) continue;
    if (!rank || !size) {
      if (by_slurm(names)) continue;  // a batch script's own command: not started by srun
      throw wrong(fmt::format("{} is set, {} is not", rank ? names.rank : names.size,
                              rank ? names.size : names.rank));
    }
    if (*size < 1 || *rank >= *size) throw wrong(fmt::format("process {} of {}", *rank, *size));
    launch.rank = static_cast<int>(*rank);
    launch.size = static_cast<int>(*size);
    if (launch.size == 1) return launch;
    launch.local_rank = static_cast<int>(number(variable, names.local_rank).value_or(*rank));
    if (names.local_size)
      launch.local_size = static_cast<int>(number(variable, names.local_size).value_or(1));
    find_address(variable, names, launch);
    const char* agent = variable("TORCHELASTIC_USE_AGENT_STORE");
    launch.store_runs_elsewhere = agent && std::string_view(agent) == "True";
    launch.prefix = fmt::format("spectralquant/{}/",
                                number(variable, "TORCHELASTIC_RESTART_COUNT").value_or(0));
    return launch;
  }
  return launch;
}

}  // namespace spectralquant::distribute
