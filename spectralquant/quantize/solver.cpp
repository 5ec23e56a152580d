#include "spectralquant/quantize/solver.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "spectralquant/core/parallel.h"
#include "spectralquant/format/round.h"
#include "spectralquant/quantize/inverse_factor.h"
#include "spectralquant/quantize/method.h"
#include "spectralquant/quantize/quadratic.h"
#include "spectralquant/quantize/row_buffer.h"
#include "spectralquant/quantize/row_solver.h"
#include "spectralquant/quantize/whole_tiles.h"

namespace spectralquant::quantize {
namespace {

/// What u upper of the start is made of, for the rows that share it.
template <class F>
struct StartFactor {
  std::vector<float> u;  ///< [cols × cols], or [cols] of a diagonal
  std::vector<BlockFactors<F>> blocks;
};

double mean_diagonal(const float* matrix, std::int64_t n, std::int64_t stride) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += matrix[i * stride];
  return sum / n;
}

/// 2^-k that brings a positive mean into [1, 2): floats of the kernels stay far from their limits,
/// and bits stay what they are.
float normaliser(double mean) {
  return mean > 0 ? static_cast<float>(std::ldexp(1., -std::clamp(std::ilogb(mean), -120, 120)))
                  : 1.f;
}

/// Solves the rows of one Quadratic. The row problems are those of method.md: Hr = H + weight_r ·
/// C, in units of g_rr.
template <class F>
class RowsSolver {
 public:
  RowsSolver(const Quadratic& q, const format::Grid& grid, const SolverOptions& options);

  /// False when the moments say nothing (all zero): any rounding is as good as another.
  bool has_signal() const { return has_signal_; }
  bool coupled() const { return two_sided_; }
  void start(format::GridMatrix& matrix) const;
  void improve_rows(format::GridMatrix& matrix) const;          ///< one round; rows are independent
  void improve_coupled_rows(format::GridMatrix& matrix) const;  ///< one round; rows coupled by g

 private:
  RowSettings settings() const {
    return {options_.live_scale_radius, options_.sweeps, options_.scale_search,
            options_.super_scale_search};
  }
  const float* h() const { return q_.diagonal() ? nullptr : h_.data(); }
  const float* c() const { return c_.empty() ? nullptr : c_.data(); }
  std::int64_t diagonal_index(std::int64_t i) const {
    return q_.diagonal() ? i : tiled_index(i, i, cols_);
  }
  std::int64_t bundles() const { return (rows_ + kBundle - 1) / kBundle; }

  void prepare_blocks();
  StartFactor<F> start_factor(float weight) const;
  void prepare_row(RowBuffer<F>& row, RowWork<F>& work, std::int64_t r) const;
  /// out [n × cols] = (values − target) · h for rows first…
  void error_times_h(const RowBuffer<F>* rows, std::int64_t first, int n, float* out) const;
  void error_times_c(const RowBuffer<F>* rows, std::int64_t first, int n, float* out) const;
  /// E·H of all rows, tiled.
  std::vector<float> errors_times_h(const format::GridMatrix& matrix) const;
  void put_tiled(std::int64_t first, int n, const float* values, std::vector<float>& tiled) const;

  struct Group;
  /// The group's coupling, and half its gradient.
  void couple(Group& group, const std::vector<float>& eh) const;
  /// Moves of some rows, each as if the other rows of the group stood still.
  void propose(Group& group, const format::GridMatrix& matrix, int begin, int count) const;
  /// Writes the moves, one after the other: one stands if the objective falls given the rows
  /// accepted before it; else the row is solved again.
  void settle(Group& group, const std::vector<float>& eh, format::GridMatrix& matrix) const;

  void times(const float* e, int n, const std::vector<float>& matrix, float* out) const {
    for (std::int64_t j = 0; j < cols_; j += kTile) {
      products_.multiply(e, cols_, n, cols_, matrix.data() + j * cols_, kTile, 0, kTile, out + j,
                         cols_);
    }
  }

  const Quadratic& q_;
  const SolverOptions& options_;
  const RowKernels<F>& kernels_;
  const Products& products_;
  const Numbers numbers_;
  std::int64_t rows_, cols_;
  bool has_signal_ = false, two_sided_ = false;
  std::vector<float> h_, c_;       ///< tiled, normalised, h_ damped; h_ is [cols] when diagonal
  std::vector<float> weight_;      ///< [rows] of c_; empty without
  std::vector<float> g_diagonal_;  ///< damped
  std::vector<BlockFactors<F>> blocks_;
};

template <class F>
RowsSolver<F>::RowsSolver(const Quadratic& q, const format::Grid& grid,
                          const SolverOptions& options)
    : q_(q),
      options_(options),
      kernels_(row_kernels<F>()),
      products_(products()),
      numbers_(numbers_of(grid)),
      rows_(q.rows()),
      cols_(q.cols()) {
  const std::int64_t n = cols_, stride = q.diagonal() ? 1 : n + 1;
  const double h_mean = mean_diagonal(q.h(), n, stride),
               c_mean = q.tied() ? mean_diagonal(q.c(), n, n + 1) : 0;
  const double g_mean = q.two_sided() ? mean_diagonal(q.g(), rows_, rows_ + 1) : 1;
  const double f_mean = q.tied() ? mean_diagonal(q.frequency(), rows_, 1) : 0;
  const bool first_term = h_mean > 0 && g_mean > 0, second_term = c_mean > 0 && f_mean > 0;
  has_signal_ = first_term || second_term;
  if (!has_signal_) return;
  two_sided_ = q.two_sided() && first_term;

  // Without a first term the second is damped by what would be its own damping.
  const float h_scale = normaliser(first_term ? h_mean : c_mean * f_mean);
  h_.assign(q.diagonal() ? n : n * n, 0.f);
  if (first_term) {
    if (q.diagonal()) {
      std::copy_n(q.h(), n, h_.begin());
    } else {
      h_ = tiled(q.h(), n);
    }
    for (float& x : h_) x *= h_scale;
  }
  const double damping = std::max(options.damping, kLeastDamping);
  const float ridge =
      static_cast<float>(damping * h_scale * (first_term ? h_mean : c_mean * f_mean));
  for (std::int64_t i = 0; i < n; ++i) h_[diagonal_index(i)] += ridge;

  g_diagonal_.assign(rows_, 1.f);
  if (two_sided_) {
    const float g_ridge =
        static_cast<float>(std::max(options.output_damping, kLeastDamping) * g_mean);
    for (std::int64_t r = 0; r < rows_; ++r) g_diagonal_[r] = q.g()[r * rows_ + r] + g_ridge;
  }
  if (second_term) {
    const float c_scale = normaliser(c_mean);
    c_ = tiled(q.c(), n);
    for (float& x : c_) x *= c_scale;
    weight_.resize(rows_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      weight_[r] = static_cast<float>(std::min(
          1e18, static_cast<double>(q.frequency()[r]) / g_diagonal_[r] * h_scale / c_scale));
    }
  }
  prepare_blocks();
}

template <class F>
void RowsSolver<F>::prepare_blocks() {
  if (!c_.empty()) return;  // each row has its own
  blocks_.resize(cols_ / F::kBlock);
  parallel_for(blocks_.size(), options_.n_threads, [&](std::size_t b) {
    const std::int64_t first = static_cast<std::int64_t>(b) * F::kBlock;
    if (q_.diagonal()) {
      factor_diagonal_block(h_.data() + first, blocks_[b]);
    } else {
      factor_block(h_.data(), nullptr, 0, cols_, first, blocks_[b]);
    }
  });
}

template <class F>
StartFactor<F> RowsSolver<F>::start_factor(float weight) const {
  StartFactor<F> factor;
  if (q_.diagonal()) {
    factor.u.resize(cols_);
    for (std::int64_t i = 0; i < cols_; ++i) factor.u[i] = 1 / std::sqrt(h_[i]);
  } else {
    std::vector<float> a = h_;
    if (!c_.empty()) {
      for (std::size_t i = 0; i < a.size(); ++i) a[i] += weight * c_[i];
    }
    // Moments that are not positive definite (rounded, or edited by hand) get more damping until
    // they are.
    double mean = 0;
    for (std::int64_t i = 0; i < cols_; ++i) mean += a[diagonal_index(i)] / cols_;
    for (double more = 1e-3;; more *= 10) {
      factor.u = inverse_factor(a.data(), cols_, options_.n_threads);
      if (!factor.u.empty()) break;
      for (std::int64_t i = 0; i < cols_; ++i)
        a[diagonal_index(i)] += static_cast<float>(more * mean);
    }
  }
  factor.blocks.resize(cols_ / F::kBlock);
  for (std::size_t b = 0; b < factor.blocks.size(); ++b) {
    take_block(factor.u.data(), q_.diagonal(), cols_, static_cast<std::int64_t>(b) * F::kBlock,
               factor.blocks[b]);
  }
  return factor;
}

template <class F>
void RowsSolver<F>::start(format::GridMatrix& matrix) const {
  // Rows of a tied embedding differ in weight; those within a factor of four share a factor.
  std::map<int, std::vector<std::int64_t>> groups;
  for (std::int64_t r = 0; r < rows_; ++r) {
    int key = 0;
    if (!c_.empty())
      key = weight_[r] > 1e-3f
                ? std::clamp(static_cast<int>(std::lround(std::log2(weight_[r]) / 2)), -5, 10)
                : -6;
    groups[key].push_back(r);
  }
  for (const auto& [key, rows] : groups) {
    const StartFactor<F> factor =
        start_factor(c_.empty() || key == -6 ? 0.f : std::ldexp(1.f, 2 * key));
    const std::size_t n_bundles = (rows.size() + kBundle - 1) / kBundle;
    parallel_for(n_bundles, options_.n_threads, [&, &rows = rows](std::size_t bundle) {
      const std::size_t first = bundle * kBundle;
      const int n = static_cast<int>(std::min<std::size_t>(kBundle, rows.size() - first));
      std::vector<RowBuffer<F>> buffers(n, RowBuffer<F>(cols_, false));
      RowWork<F> work[kBundle];
      for (int r = 0; r < n; ++r) {
        buffers[r].load(matrix, rows[first + r]);
        std::copy_n(q_.target() + rows[first + r] * cols_, cols_, buffers[r].m());
        work[r] = buffers[r].work();
        work[r].blocks = factor.blocks.data();
      }
      kernels_.start(work, n, cols_, q_.diagonal() ? nullptr : factor.u.data(), numbers_,
                     settings());
      for (int r = 0; r < n; ++r) buffers[r].store(matrix, rows[first + r]);
    });
  }
}

template <class F>
void RowsSolver<F>::error_times_h(const RowBuffer<F>* rows, std::int64_t first, int n,
                                  float* out) const {
  std::vector<float> e(n * cols_);
  for (int r = 0; r < n; ++r) {
    for (std::int64_t i = 0; i < cols_; ++i)
      e[r * cols_ + i] = rows[r].value()[i] - q_.target()[(first + r) * cols_ + i];
  }
  if (q_.diagonal()) {
    for (std::int64_t i = 0; i < n * cols_; ++i) out[i] = e[i] * h_[i % cols_];
  } else {
    times(e.data(), n, h_, out);
  }
}

template <class F>
void RowsSolver<F>::error_times_c(const RowBuffer<F>* rows, std::int64_t first, int n,
                                  float* out) const {
  std::vector<float> e(n * cols_);
  for (int r = 0; r < n; ++r) {
    for (std::int64_t i = 0; i < cols_; ++i)
      e[r * cols_ + i] = rows[r].value()[i] - q_.c_target()[(first + r) * cols_ + i];
  }
  times(e.data(), n, c_, out);
}

template <class F>
void RowsSolver<F>::prepare_row(RowBuffer<F>& row, RowWork<F>& work, std::int64_t r) const {
  work = row.work();
  if (c_.empty()) {
    work.blocks = blocks_.data();
    return;
  }
  work.weight = weight_[r];
  for (std::int64_t b = 0; b < cols_ / F::kBlock; ++b)
    factor_block(h_.data(), c_.data(), weight_[r], cols_, b * F::kBlock, row.own_blocks()[b]);
}

template <class F>
void RowsSolver<F>::improve_rows(format::GridMatrix& matrix) const {
  parallel_for(static_cast<std::size_t>(bundles()), options_.n_threads, [&](std::size_t bundle) {
    const std::int64_t first = static_cast<std::int64_t>(bundle) * kBundle;
    const int n = static_cast<int>(std::min<std::int64_t>(kBundle, rows_ - first));
    std::vector<RowBuffer<F>> buffers(n, RowBuffer<F>(cols_, !c_.empty()));
    RowWork<F> work[kBundle];
    std::vector<float> product(n * cols_);
    for (int r = 0; r < n; ++r) {
      buffers[r].load(matrix, first + r);
      prepare_row(buffers[r], work[r], first + r);
    }
    error_times_h(buffers.data(), first, n, product.data());
    for (int r = 0; r < n; ++r) std::copy_n(product.data() + r * cols_, cols_, buffers[r].m());
    if (!c_.empty()) {
      error_times_c(buffers.data(), first, n, product.data());
      for (int r = 0; r < n; ++r) {
        for (std::int64_t i = 0; i < cols_; ++i)
          buffers[r].m()[i] += weight_[first + r] * product[r * cols_ + i];
      }
    }
    kernels_.improve(work, n, cols_, h(), c(), numbers_, settings());
    for (int r = 0; r < n; ++r) buffers[r].store(matrix, first + r);
  });
}

/// Rows coupled by G whose moves are proposed together, and their errors times H as they become.
template <class F>
struct RowsSolver<F>::Group {
  std::int64_t first = 0;
  int n = 0;
  std::vector<RowBuffer<F>> now;
  /// [n, cols]: values before the move, half the gradient, E·H after it; [n, rows]: G_rk / G_rr
  std::vector<float> before, gradient, eh, coupling;
  std::vector<double> gain;

  Group(std::int64_t rows, std::int64_t cols, bool tied)
      : now(kGroupRows, RowBuffer<F>(cols, tied)),
        before(kGroupRows * cols),
        gradient(kGroupRows * cols),
        eh(kGroupRows * cols),
        coupling(kGroupRows * rows),
        gain(kGroupRows) {}
};

template <class F>
void RowsSolver<F>::put_tiled(std::int64_t first, int n, const float* values,
                              std::vector<float>& tiled) const {
  for (int r = 0; r < n; ++r) {
    for (std::int64_t j = 0; j < cols_; j += kTile)
      std::copy_n(values + r * cols_ + j, kTile, &tiled[tiled_index(first + r, j, rows_)]);
  }
}

template <class F>
std::vector<float> RowsSolver<F>::errors_times_h(const format::GridMatrix& matrix) const {
  std::vector<float> eh(rows_ * cols_);
  parallel_for(static_cast<std::size_t>(bundles()), options_.n_threads, [&](std::size_t bundle) {
    const std::int64_t first = static_cast<std::int64_t>(bundle) * kBundle;
    const int n = static_cast<int>(std::min<std::int64_t>(kBundle, rows_ - first));
    std::vector<RowBuffer<F>> buffers(n, RowBuffer<F>(cols_, false));
    for (int r = 0; r < n; ++r) buffers[r].load(matrix, first + r);
    std::vector<float> product(n * cols_);
    error_times_h(buffers.data(), first, n, product.data());
    put_tiled(first, n, product.data(), eh);
  });
  return eh;
}

template <class F>
void RowsSolver<F>::couple(Group& group, const std::vector<float>& eh) const {
  for (int r = 0; r < group.n; ++r) {
    const float* g = q_.g() + (group.first + r) * rows_;
    const float inverse = 1 / g_diagonal_[group.first + r];
    for (std::int64_t k = 0; k < rows_; ++k) group.coupling[r * rows_ + k] = g[k] * inverse;
    group.coupling[r * rows_ + group.first + r] = 1;
  }
  parallel_for(static_cast<std::size_t>(cols_ / kTile), options_.n_threads, [&](std::size_t t) {
    const std::int64_t j = static_cast<std::int64_t>(t) * kTile;
    products_.multiply(group.coupling.data(), rows_, group.n, rows_, eh.data() + j * rows_, kTile,
                       0, kTile, group.gradient.data() + j, cols_);
  });
}

template <class F>
void RowsSolver<F>::propose(Group& group, const format::GridMatrix& matrix, int begin,
                            int count) const {
  RowWork<F> work[kBundle];
  std::vector<float> product(count * cols_);
  RowBuffer<F>* now = group.now.data();
  for (int r = begin; r < begin + count; ++r) {
    now[r].load(matrix, group.first + r);
    std::copy_n(now[r].value(), cols_, group.before.data() + r * cols_);
    prepare_row(now[r], work[r - begin], group.first + r);
    std::copy_n(group.gradient.data() + r * cols_, cols_, now[r].m());
  }
  if (!c_.empty()) {
    error_times_c(&now[begin], group.first + begin, count, product.data());
    for (int r = begin; r < begin + count; ++r) {
      for (std::int64_t i = 0; i < cols_; ++i)
        now[r].m()[i] += weight_[group.first + r] * product[(r - begin) * cols_ + i];
    }
  }
  kernels_.improve(work, count, cols_, h(), c(), numbers_, settings());
  for (int r = begin; r < begin + count; ++r) group.gain[r] = work[r - begin].gain;
  error_times_h(&now[begin], group.first + begin, count, group.eh.data() + begin * cols_);
}

template <class F>
void RowsSolver<F>::settle(Group& group, const std::vector<float>& eh,
                           format::GridMatrix& matrix) const {
  for (int r = 0; r < group.n; ++r) {
    std::vector<float> shift(cols_, 0.f);  // of the gradient, by the accepted rows
    for (int s = 0; s < r; ++s) {
      const float factor = group.coupling[r * rows_ + group.first + s];
      if (factor == 0) continue;
      for (std::int64_t j = 0; j < cols_; j += kTile) {
        const float *old_eh = &eh[tiled_index(group.first + s, j, rows_)],
                    *new_eh = &group.eh[s * cols_ + j];
        for (int i = 0; i < kTile; ++i) shift[j + i] += factor * (new_eh[i] - old_eh[i]);
      }
    }
    double cross = 0;
    for (std::int64_t i = 0; i < cols_; ++i)
      cross +=
          static_cast<double>(shift[i]) * (group.now[r].value()[i] - group.before[r * cols_ + i]);
    if (group.gain[r] + 2 * cross > 0) {
      for (std::int64_t i = 0; i < cols_; ++i) group.gradient[r * cols_ + i] += shift[i];
      propose(group, matrix, r, 1);
    }
    group.now[r].store(matrix, group.first + r);
  }
}

template <class F>
void RowsSolver<F>::improve_coupled_rows(format::GridMatrix& matrix) const {
  constexpr int kProposal = 4;  // rows to an item: bits do not depend on it
  std::vector<float> eh = errors_times_h(matrix);
  Group group(rows_, cols_, !c_.empty());
  for (group.first = 0; group.first < rows_; group.first += kGroupRows) {
    group.n = static_cast<int>(std::min<std::int64_t>(kGroupRows, rows_ - group.first));
    couple(group, eh);
    parallel_for(static_cast<std::size_t>((group.n + kProposal - 1) / kProposal),
                 options_.n_threads, [&](std::size_t item) {
                   const int begin = static_cast<int>(item) * kProposal;
                   propose(group, matrix, begin, std::min(kProposal, group.n - begin));
                 });
    settle(group, eh, matrix);
    put_tiled(group.first, group.n, group.eh.data(), eh);
  }
}

/// Takes from `other` what is better, in the exact objective: row by row, or as a whole when rows
/// are coupled. Returns other's objective.
double keep_better(const Quadratic& q, const format::GridMatrix& other, int n_threads,
                   format::GridMatrix& best, std::vector<double>& costs) {
  const std::vector<double> other_costs = q.row_objectives(other, n_threads);
  const double total = sum(other_costs);
  if (q.two_sided()) {
    if (total < sum(costs)) best = other, costs = other_costs;
    return total;
  }
  for (std::int64_t r = 0; r < best.rows; ++r) {
    if (!(other_costs[r] < costs[r])) continue;
    costs[r] = other_costs[r];
    best.copy_rows(other, r, 1, r);
  }
  return total;
}

template <class F>
Solution solve_in(const Problem& problem, const SolverOptions& options, const Progress& progress) {
  const Quadratic q(to_whole_tiles(problem));
  const RowsSolver<F> solver(q, *problem.grid, options);
  const std::int64_t rows = q.rows(), cols = q.cols();
  const int n_threads = options.n_threads;
  const std::uint64_t passes = 1 + std::max(0, options.rounds),
                      weights = static_cast<std::uint64_t>(rows * cols);
  auto done = [&](std::uint64_t pass) {
    report(progress, {"solve", {}, pass * weights, passes * weights, "weights"});
  };

  const std::vector<float> diagonal = q.h_diagonal();
  const std::int64_t n_cols = problem.target.size(1);
  const torch::Tensor target =
      problem.target.detach().to(torch::kCPU, torch::kFloat32).contiguous();
  const auto rounded = [&](const float* importance) {
    return with_columns(format::round_like_llama(*problem.grid, target.data_ptr<float>(), rows,
                                                 n_cols, importance, n_threads),
                        cols);
  };
  const format::GridMatrix plain = rounded(nullptr), weighted = rounded(diagonal.data());
  Solution solution;
  if (solver.has_signal()) {
    solution.matrix = weighted;
    if (options.feedback) solver.start(solution.matrix);
  } else {
    solution.matrix = plain;
  }
  std::vector<double> costs = q.row_objectives(solution.matrix, n_threads);
  solution.objective_start = sum(costs);
  done(1);
  if (solver.has_signal()) {
    for (int round = 0; round < options.rounds; ++round) {
      if (solver.coupled()) {
        solver.improve_coupled_rows(solution.matrix);
      } else {
        solver.improve_rows(solution.matrix);
      }
      done(2 + round);
    }
    if (options.rounds > 0) costs = q.row_objectives(solution.matrix, n_threads);
  }
  solution.plain_objective = keep_better(q, plain, n_threads, solution.matrix, costs);
  solution.imatrix_objective = keep_better(q, weighted, n_threads, solution.matrix, costs);
  solution.objective = sum(costs);
  solution.matrix = with_columns(solution.matrix, n_cols);
  return solution;
}

}  // namespace

Solution solve(const Problem& problem, const SolverOptions& options, const Progress& progress) {
  return with_shape(*problem.grid, [&](auto shape) {
    return solve_in<decltype(shape)>(problem, options, progress);
  });
}

}  // namespace spectralquant::quantize
