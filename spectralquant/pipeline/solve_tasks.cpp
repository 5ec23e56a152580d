#include "spectralquant/pipeline/solve_tasks.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>

#include "spectralquant/core/error.h"
#include "spectralquant/pipeline/device.h"
#include "spectralquant/pipeline/solved_matrix.h"
#include "spectralquant/quantize/batched_solver.h"

namespace spectralquant::pipeline {
namespace {

using format::GridMatrix;
using quantize::Problem;

quantize::SolverOptions solver_options(const QuantizeOptions& options) {
  quantize::SolverOptions solver = options.solver;
  if (solver.n_threads <= 0) solver.n_threads = options.n_threads;
  return solver;
}

/// The device that matrices are solved on: the model's, where this build has kernels for it.
torch::Device solver_device(const Job& job) {
  const torch::Device device = device_of(job.options.device, job.options.group.local_rank());
  return quantize::has_batched_kernels(device) ? device : torch::Device(torch::kCPU);
}

/// In the work folder. Names of tensors are free: without the prefix one could be a file of another
/// kind there.
std::string work_name(const gguf::MatrixId& id) { return "matrix." + id.text(); }

/// A matrix of fewer values is solved sooner than its rows are sent around.
constexpr std::uint64_t kSmallestSplit = std::uint64_t{1} << 16;

SolvedMatrix solve_problem(const Job& job, const gguf::MatrixId& id, Problem problem) {
  problem.grid = &job.output.grid_of(id.tensor);
  const auto start = std::chrono::steady_clock::now();
  const torch::Device device = solver_device(job);
  quantize::Solution solution = naming(id, [&] {
    return device.is_cpu() ? quantize::solve(problem, solver_options(job.options))
                           : quantize::solve_batched(problem, solver_options(job.options), device);
  });
  SolvedMatrix out;
  out.report.id = id;
  out.report.rows = problem.target.size(0);
  out.report.cols = problem.target.size(1);
  out.report.seconds = seconds_since(start);
  out.report.objective = solution.objective;
  out.report.plain_objective = solution.plain_objective;
  out.report.imatrix_objective = solution.imatrix_objective;
  if (const double all = energy(problem, device); all > 0)
    out.report.relative_error = solution.objective / all;
  out.matrix = std::move(solution.matrix);
  return out;
}

/// A matrix that is put together from rows solved apart.
class Assembly {
 public:
  Assembly(const Job& job, const gguf::MatrixId& id, std::int64_t rows, std::int64_t cols) {
    whole_.report.id = id;
    whole_.report.rows = rows;
    whole_.report.cols = cols;
    whole_.matrix = GridMatrix(job.output.grid_of(id.tensor), rows, cols);
  }

  /// side_by_side: solved at the same time as the others.
  void put(const SolvedMatrix& part, std::int64_t first, bool side_by_side) {
    whole_.matrix.copy_rows(part.matrix, 0, part.matrix.rows, first);
    MatrixReport& report = whole_.report;
    report.objective += part.report.objective;
    report.plain_objective += part.report.plain_objective;
    report.imatrix_objective += part.report.imatrix_objective;
    report.seconds = side_by_side ? std::max(report.seconds, part.report.seconds)
                                  : report.seconds + part.report.seconds;
    if (part.report.relative_error > 0) all_ += part.report.objective / part.report.relative_error;
  }

  SolvedMatrix take() {
    if (all_ > 0) whole_.report.relative_error = whole_.report.objective / all_;
    return std::move(whole_);
  }

 private:
  SolvedMatrix whole_;
  double all_ = 0;  ///< what relative errors are relative to
};

/// Rows [first, last) of a task's matrix, in slices where they stand alone.
SolvedMatrix solve_rows(const Job& job, const Task& task, std::int64_t first, std::int64_t last) {
  const gguf::MatrixId id = task.source.id();
  const std::int64_t step = std::max<std::int64_t>(1, kSliceValues / task.source.cols());
  if (!task.rows_stand_alone || last - first <= step)
    return solve_problem(job, id, task.problem(first, last));
  Assembly whole(job, id, last - first, task.source.cols());
  for (std::int64_t row = first; row < last; row += step) {
    const std::int64_t end = std::min(row + step, last);
    whole.put(solve_problem(job, id, task.problem(row, end)), row - first,
              /*side_by_side=*/false);
  }
  return whole.take();
}

SolvedMatrix received(const Job& job, const std::string& bytes, const gguf::MatrixId& id,
                      std::int64_t rows, std::int64_t cols) {
  auto solved = SolvedMatrix::from_bytes(bytes, job.output.grid_of(id.tensor), id, rows, cols);
  if (solved) return std::move(*solved);
  throw Error(ErrorCode::kFailed, "the solved matrix " + id.text() + " was damaged on its way",
              job.options.output, "start again with the same command");
}

/// Some rows in each process; the same bytes as in one.
SolvedMatrix solve_by_rows(const Job& job, const Task& task) {
  const distribute::Group& group = job.options.group;
  const gguf::MatrixId id = task.source.id();
  const std::int64_t rows = task.source.rows(), cols = task.source.cols();
  const auto rows_of_process = [&](int rank) {
    const auto [first, last] = group.share(static_cast<std::size_t>(rows), rank);
    return std::pair(static_cast<std::int64_t>(first), static_cast<std::int64_t>(last));
  };
  const int own = group.rank();
  const auto [own_first, own_last] = rows_of_process(own);
  const std::string own_bytes = solve_rows(job, task, own_first, own_last).to_bytes();
  Assembly whole(job, id, rows, cols);
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto [first, last] = rows_of_process(rank);
    whole.put(
        received(job, group.broadcast(rank == own ? own_bytes : "", rank), id, last - first, cols),
        first, /*side_by_side=*/true);
  }
  return whole.take();
}

/// Which process solves which task: most expensive first, each to the least busy.
std::vector<int> share_out(const std::vector<Task>& tasks, const Job& job) {
  const auto cost = [&](std::size_t i) {
    const double rows = static_cast<double>(tasks[i].source.rows()),
                 cols = static_cast<double>(tasks[i].source.cols());
    // by all, or done
    const bool shared = tasks[i].rows_stand_alone || job.solved.contains(tasks[i].source.id());
    return shared ? 0.0 : rows * cols * (rows + cols);
  };
  std::vector<std::size_t> order(tasks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return cost(a) > cost(b); });
  std::vector<double> load(static_cast<std::size_t>(job.options.group.size()), 0);
  std::vector<int> owners(tasks.size());
  for (const std::size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    owners[i] = static_cast<int>(least - load.begin());
    *least += cost(i);
  }
  return owners;
}

}  // namespace

SolveProgress::SolveProgress(const Job& job) : job_(job) {
  for (const gguf::Matrix& matrix : job.output.matrices()) total_ += matrix.n_values();
}

void SolveProgress::begin(const gguf::MatrixId& id) const {
  report(job_.progress, {"solve", id.text(), done_, total_, "weights"});
}

void SolveProgress::end(const gguf::Matrix& matrix) {
  done_ += matrix.n_values();
  begin(matrix.id());
}

double energy(const Problem& problem, torch::Device device) {
  return quantize::objective_on(
      problem, GridMatrix(*problem.grid, problem.target.size(0), problem.target.size(1)), device);
}

void solve_and_write(Job& job, SolveProgress& progress, const std::vector<Task>& tasks,
                     const Put& put) {
  const distribute::Group& group = job.options.group;
  const std::vector<int> owners = share_out(tasks, job);
  const auto solve = [&](const Task& task) {
    progress.begin(task.source.id());
    SolvedMatrix solved = solve_rows(job, task, 0, task.source.rows());
    solved.report.token_share = task.token_share;
    return solved;
  };
  const auto by_rows = [&](const Task& task) {
    return task.rows_stand_alone && task.source.n_values() >= kSmallestSplit &&
           task.source.rows() >= group.size();
  };
  std::vector<std::string> own(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (group.alone() || owners[i] != group.rank() || by_rows(tasks[i]) ||
        job.solved.contains(tasks[i].source.id()))
      continue;
    own[i] = solve(tasks[i]).to_bytes();
  }
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const gguf::Matrix& source = tasks[i].source;
    const gguf::MatrixId id = source.id();
    const bool before = job.solved.contains(id);
    SolvedMatrix solved;
    if (before) {
      const std::string kept = job.work ? job.work->read(work_name(id)).value_or("") : "";
      solved = received(job, group.broadcast(kept, 0), id, source.rows(), source.cols());
      ++job.report.resumed;
    } else if (group.alone()) {
      solved = solve(tasks[i]);
    } else if (by_rows(tasks[i])) {
      solved = solve_by_rows(job, tasks[i]);
      solved.report.token_share = tasks[i].token_share;
    } else {
      solved = received(job, group.broadcast(std::move(own[i]), owners[i]), id, source.rows(),
                        source.cols());
    }
    if (!before && job.work) job.work->write(work_name(id), solved.to_bytes());
    job.output.write(source, 0, solved.matrix);
    if (put) put(id, solved.matrix);
    job.report.matrices.push_back(std::move(solved.report));
    progress.end(source);
  }
}

std::set<gguf::MatrixId> find_solved(const WorkFolder& work, const quantize::Plan& plan) {
  std::set<gguf::MatrixId> ids;
  for (const auto& planned : plan.tensors) {
    if (planned.action != quantize::Action::kSolve) continue;
    for (const gguf::Matrix& source : gguf::matrices_of(*planned.source)) {
      const auto bytes = work.read(work_name(source.id()));
      if (bytes && SolvedMatrix::from_bytes(*bytes, format::grid_of(planned.type), source.id(),
                                            source.rows(), source.cols()))
        ids.insert(source.id());
    }
  }
  return ids;
}

}  // namespace spectralquant::pipeline
