#pragma once
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/pipeline/solve_model.h"

namespace spectralquant::pipeline {

/// Reports "solve" by weights done.
class SolveProgress {
 public:
  explicit SolveProgress(const Job& job);
  void begin(const gguf::MatrixId& id) const;
  void end(const gguf::Matrix& matrix);

 private:
  const Job& job_;
  std::uint64_t done_ = 0, total_ = 0;
};

/// Values of a matrix that are solved at once where rows stand alone: 256 MiB of float32. Each
/// slice factors H anew.
inline constexpr std::int64_t kSliceValues = std::int64_t{1} << 26;

/// A matrix to be solved.
struct Task {
  gguf::Matrix source;
  /// Built when it is needed, as it holds the moments. Of rows [first, last) only where rows stand
  /// alone.
  std::function<quantize::Problem(std::int64_t first, std::int64_t last)> problem;
  /// no output moment couples them: they are solved in slices, and by several processes
  bool rows_stand_alone = false;
  std::optional<double> token_share = {};  ///< of an expert, for the report
};

/// Called with each matrix once it is written, in the order of the tasks.
using Put = std::function<void(const gguf::MatrixId& id, const format::GridMatrix& matrix)>;

/// Solves matrices, each in one process or some rows in each, or takes them from the work folder;
/// all processes get all of them. The first keeps and writes them as they come.
void solve_and_write(Job& job, SolveProgress& progress, const std::vector<Task>& tasks,
                     const Put& put = {});

/// The plan's matrices that an earlier run of this job solved.
std::set<gguf::MatrixId> find_solved(const WorkFolder& work, const quantize::Plan& plan);

/// Runs body; an Error about what it was given gets the matrix's name in front.
template <typename Body>
auto naming(const gguf::MatrixId& matrix, Body body) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadInput) throw;
    throw bad_input(matrix.text() + ": " + error.problem(), error.place(), error.fix());
  }
}

/// The objective of leaving the matrix away: what relative errors are relative to.
double energy(const quantize::Problem& problem, torch::Device device);

}  // namespace spectralquant::pipeline
