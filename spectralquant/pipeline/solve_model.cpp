#include "spectralquant/pipeline/solve_model.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "spectralquant/calibrate/walk.h"
#include "spectralquant/format/round.h"
#include "spectralquant/gguf/mapping.h"
#include "spectralquant/model/decode.h"
#include "spectralquant/model/model.h"
#include "spectralquant/pipeline/solve_tasks.h"

namespace spectralquant::pipeline {
namespace {

using calibrate::MatrixSignal;
using format::GridMatrix;
using quantize::Problem;

/// Rows are rounded on their own, so a huge matrix can be taken in pieces of this many values.
constexpr std::int64_t kRoundedPieceValues = std::int64_t{1} << 24;

/// Share of the mean of diag(H) that is added to it before drift is divided by it (docs/method.md,
/// section 3).
constexpr double kDriftDamping = 0.02;

/// Share of the mean of a diagonal G that is added to it.
constexpr double kDiagonalDamping = 0.01;

/// What an error of rows [first, first + n) costs as far as static signals tell; `target`: what
/// they are to become.
Problem static_problem(const calibrate::Signals& signals, const gguf::MatrixId& id,
                       const torch::Tensor& target, std::int64_t first, bool two_sided) {
  Problem problem;
  problem.target = target;
  const auto it = signals.matrices.find(id);
  const MatrixSignal signal = it == signals.matrices.end() ? MatrixSignal{} : it->second;
  problem.h = signal.h;
  if (!problem.h.defined()) {
    // An embedding that is only looked up: each row stands alone, and its frequency scales the
    // whole row.
    problem.h = two_sided && signal.c.defined() ? signal.c : torch::ones({target.size(1)});
    return problem;
  }
  if (!two_sided || !signal.g.defined()) return problem;
  const bool diagonal = signal.g.dim() == 1;
  if (!diagonal) problem.g = signal.g;
  if (signal.c.defined() && signal.frequency.defined()) {
    problem.c = signal.c;
    torch::Tensor frequency = calibrate::smoothed_frequency(signal.frequency, signals.n_tokens);
    // Rows that a diagonal G does not couple are solved each in units of its own g_rr.
    if (diagonal) frequency = frequency / (signal.g + signal.g.mean() * kDiagonalDamping);
    problem.frequency = frequency.slice(0, first, first + target.size(0));
  }
  return problem;
}

/// What an error of a row costs does not depend on the others.
bool rows_stand_alone(const calibrate::Signals& signals, const gguf::MatrixId& id, bool two_sided) {
  const auto it = signals.matrices.find(id);
  return !two_sided || it == signals.matrices.end() || !it->second.g.defined() ||
         it->second.g.dim() == 1;
}

/// Corrects targets for what the quantized part in front does to a stage's inputs and to the
/// residual stream: W + share · D Hq⁻¹, where D is W E[(x_f − x_q) x_qᵀ], or the whole output drift
/// of an output projection.
class DriftCorrection {
 public:
  DriftCorrection(const calibrate::InputMoments& moments, double share, torch::Device device)
      : moments_(moments), share_(share), device_(device) {
    if (share == 0 || !(moments.input_drift.defined() || moments.output_drift.defined())) return;
    torch::Tensor h = exact(moments.h);
    const double mean = h.diagonal().mean().item<double>();
    if (!(mean > 0)) return;  // inputs that are all zero drift nowhere
    h.diagonal().add_(kDriftDamping * mean);
    factor_ = torch::linalg_cholesky(h);
  }

  /// weights: rows of a matrix, from row `first` on.
  torch::Tensor target(const torch::Tensor& weights, std::int64_t first) const {
    if (!factor_.defined()) return weights;
    const torch::Tensor drift =
        moments_.output_drift.defined()
            ? exact(moments_.output_drift.slice(0, first, first + weights.size(0)))
            : exact(weights).mm(exact(moments_.input_drift));
    const torch::Tensor correction = torch::cholesky_solve(drift.t(), factor_).t().to(torch::kCPU);
    return (weights + share_ * correction).to(torch::kFloat32).contiguous();
  }

 private:
  /// A copy in float64 on the device.
  torch::Tensor exact(const torch::Tensor& x) const {
    return x.to(torch::TensorOptions(device_).dtype(torch::kFloat64), /*non_blocking=*/false,
                /*copy=*/true);
  }

  const calibrate::InputMoments& moments_;
  double share_;
  torch::Device device_;
  torch::Tensor factor_;
};

torch::Tensor decoded(const GridMatrix& matrix) {
  torch::Tensor out = torch::empty({matrix.rows, matrix.cols}, torch::kFloat32);
  matrix.decode(0, matrix.rows, out.data_ptr<float>());
  return out;
}

/// Rows [first, last) of a matrix, float32.
torch::Tensor weights_of(const gguf::Matrix& source, std::int64_t first, std::int64_t last) {
  const auto begin = source.first_row() + static_cast<std::uint64_t>(first),
             n = static_cast<std::uint64_t>(last - first);
  torch::Tensor weights = model::decode_rows(*source.tensor, begin, n);
  gguf::leave_memory(*source.tensor, begin, n);
  return weights;
}

/// Of an expert.
std::optional<double> share_of(std::int64_t n_tokens, std::int64_t n_all) {
  if (n_tokens < 0 || n_all == 0) return std::nullopt;
  return static_cast<double>(n_tokens) / static_cast<double>(n_all);
}

/// Solves matrices along the walk; what is solved takes the place of the original weights while its
/// block is run.
class SequentialSolver {
 public:
  SequentialSolver(Job& job, model::Model& model, calibrate::Signals signals)
      : job_(job), model_(model), signals_(std::move(signals)), progress_(job) {}

  void solve_embedding() {
    const std::string name = model_.architecture().embedding_name();
    job_.times.enter("solve");
    const std::optional<gguf::Matrix> source = job_.output.find(name);
    if (!source) return;
    const auto problem = [&](std::int64_t first, std::int64_t last) {
      return static_problem(signals_, name, weights_of(*source, first, last), first,
                            job_.options.two_sided);
    };
    solve_and_write(job_, progress_,
                    {{*source, problem, rows_stand_alone(signals_, name, job_.options.two_sided)}},
                    put());
    // Draft blocks look tokens up behind the last of the others.
    if (model_.architecture().n_draft_blocks() > 0) in_place_.clear();
  }

  void walk(const calibrate::Windows& windows) {
    const auto& matrices = job_.output.matrices();
    if (std::all_of(matrices.begin(), matrices.end(),
                    [&](const gguf::Matrix& matrix) { return is_done(matrix.id()); }))
      return;
    calibrate::WalkOptions options;
    options.group = job_.options.group;
    options.spill = job_.spill;
    options.drift = job_.options.drift_correction > 0;
    options.wanted = [&](const model::Stage& stage) {
      return std::any_of(stage.begin(), stage.end(), [&](const model::Readers& readers) {
        return std::any_of(readers.begin(), readers.end(), [&](const gguf::MatrixId& id) {
          return job_.output.find(id) && !is_done(id);
        });
      });
    };
    job_.times.enter("walk");
    n_tokens_ = static_cast<std::int64_t>(windows.size() * windows.front().size());
    calibrate::walk(model_, windows, options,
                    [&](const calibrate::StageMoments& stage) { solve_stage(stage); });
  }

  /// All of them if an earlier run had solved all; and matrices that a forward pass never reads,
  /// such as extra prediction heads.
  void solve_rest() {
    job_.times.enter("solve");
    for (const gguf::Matrix& source : job_.output.matrices()) {
      if (job_.output.has(source.id())) continue;
      const auto problem = [&source](std::int64_t first, std::int64_t last) {
        return static_problem({}, source.id(), weights_of(source, first, last), first, false);
      };
      solve_and_write(job_, progress_, {{source, problem, true}});
    }
  }

 private:
  bool is_done(const gguf::MatrixId& id) const {
    return job_.output.has(id) || job_.solved.contains(id);
  }

  Put put() {
    return [this](const gguf::MatrixId& id, const GridMatrix& matrix) {
      model_.weights().set(id, decoded(matrix).to(model_.device(), model_.dtype()));
      in_place_.push_back(id);
    };
  }

  void solve_stage(const calibrate::StageMoments& stage) {
    job_.times.enter("solve");
    // What lies behind us is not run again: blocks, and the embedding, whose rows the streams have.
    if (const std::int64_t block = stage.front().block; block != block_) {
      for (const gguf::MatrixId& id : in_place_) model_.weights().reset(id);
      in_place_.clear();
      block_ = block;
    }
    std::vector<Task> tasks;
    for (const calibrate::InputMoments& moments : stage) add_tasks(moments, stage.size(), tasks);
    solve_and_write(job_, progress_, tasks, put());
    for (const calibrate::InputMoments& moments : stage)
      for (const gguf::MatrixId& id : moments.matrices) signals_.matrices.erase(id);
    job_.times.enter("walk");
  }

  /// Of matrices that read one input: they share the factor of their drift correction.
  void add_tasks(const calibrate::InputMoments& moments, std::size_t n_inputs,
                 std::vector<Task>& tasks) {
    const auto correction = std::make_shared<std::optional<DriftCorrection>>();
    for (const gguf::MatrixId& id : moments.matrices) {
      const std::optional<gguf::Matrix> source = job_.output.find(id);
      // kept in another type; or the tied head, solved as embedding
      if (!source || job_.output.has(id)) continue;
      const auto problem = [this, &moments, correction, source = *source](std::int64_t first,
                                                                          std::int64_t last) {
        if (!*correction)
          correction->emplace(moments, job_.options.drift_correction, model_.device());
        Problem out = static_problem(signals_, source.id(),
                                     (*correction)->target(weights_of(source, first, last), first),
                                     first, job_.options.two_sided);
        out.h = moments.h;
        return out;
      };
      tasks.push_back({*source, problem, rows_stand_alone(signals_, id, job_.options.two_sided),
                       share_of(n_inputs > 1 ? moments.n_tokens : -1, n_tokens_)});
    }
  }

  Job& job_;
  model::Model& model_;
  calibrate::Signals signals_;  ///< of a matrix: until it is solved
  SolveProgress progress_;
  std::vector<gguf::MatrixId> in_place_;  ///< weights of the current block that were set
  std::int64_t n_tokens_ = 0;             ///< of the walk
  std::int64_t block_ = -2;               ///< −2: nothing but the embedding was solved
};

}  // namespace

namespace {

/// Rounds one matrix and writes it, piece by piece.
MatrixReport round_matrix(Job& job, const gguf::Matrix& source, const calibrate::Signals* signals) {
  const auto start = std::chrono::steady_clock::now();
  const gguf::MatrixId id = source.id();
  const torch::Tensor importance = signals ? calibrate::importance(*signals, id) : torch::Tensor();
  const format::Grid& grid = job.output.grid_of(id.tensor);
  MatrixReport report;
  report.id = id;
  report.rows = source.rows();
  report.cols = source.cols();
  double all = 0;
  const std::int64_t step = std::max<std::int64_t>(1, kRoundedPieceValues / report.cols);
  for (std::int64_t row = 0; row < report.rows; row += step) {
    const std::int64_t n = std::min(step, report.rows - row);
    Problem problem;
    problem.grid = &grid;
    problem.target =
        model::decode_rows(*source.tensor, source.first_row() + static_cast<std::uint64_t>(row),
                           static_cast<std::uint64_t>(n));
    problem.h = !importance.defined()    ? torch::ones({report.cols})
                : signals->diagonal_only ? importance
                                         : signals->matrices.at(id).h;
    const auto cost = [&](const GridMatrix& rounded) {
      return naming(id, [&] { return quantize::objective(problem, rounded); });
    };
    const float* weights = problem.target.data_ptr<float>();
    const GridMatrix plain =
        format::round_like_llama(grid, weights, n, report.cols, nullptr, job.options.n_threads);
    report.plain_objective += cost(plain);
    if (importance.defined()) {
      const GridMatrix weighted = format::round_like_llama(
          grid, weights, n, report.cols, importance.data_ptr<float>(), job.options.n_threads);
      report.imatrix_objective += cost(weighted);
      job.output.write(source, row, weighted);
    } else {
      job.output.write(source, row, plain);
    }
    all += energy(problem, torch::kCPU);
  }
  report.objective = importance.defined() ? report.imatrix_objective : report.plain_objective;
  report.relative_error = all > 0 ? report.objective / all : 0;
  report.seconds = seconds_since(start);
  return report;
}

/// Of an expert.
std::optional<double> share_in(const calibrate::Signals& signals, const gguf::MatrixId& id) {
  const auto it = signals.matrices.find(id);
  return it == signals.matrices.end() ? std::nullopt
                                      : share_of(it->second.n_tokens, signals.n_tokens);
}

}  // namespace

void round_model(Job& job, const calibrate::Signals* signals) {
  SolveProgress progress(job);
  job.times.enter("solve");
  for (const gguf::Matrix& source : job.output.matrices()) {
    progress.begin(source.id());
    MatrixReport report = round_matrix(job, source, signals);
    if (signals) report.token_share = share_in(*signals, source.id());
    job.report.matrices.push_back(std::move(report));
    progress.end(source);
  }
}

void solve_static(Job& job, const calibrate::Signals& signals) {
  SolveProgress progress(job);
  job.times.enter("solve");
  // So many at once that the processes finish at about the same time, and not so many that their
  // results would fill the memory.
  const auto at_once = static_cast<std::size_t>(4 * job.options.group.size());
  std::vector<Task> tasks;
  for (const gguf::Matrix& source : job.output.matrices()) {
    const gguf::MatrixId id = source.id();
    tasks.push_back({source,
                     [&job, &signals, source](std::int64_t first, std::int64_t last) {
                       return static_problem(signals, source.id(), weights_of(source, first, last),
                                             first, job.options.two_sided);
                     },
                     rows_stand_alone(signals, id, job.options.two_sided), share_in(signals, id)});
    if (tasks.size() < at_once && &source != &job.output.matrices().back()) continue;
    solve_and_write(job, progress, tasks);
    tasks.clear();
  }
}

void solve_sequential(Job& job, model::Model& model, const calibrate::Windows& windows,
                      calibrate::Signals signals) {
  SequentialSolver solver(job, model, std::move(signals));
  solver.solve_embedding();
  solver.walk(windows);
  solver.solve_rest();
}

}  // namespace spectralquant::pipeline
