#include "spectralquant/quantize/batched_solver.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "spectralquant/format/round.h"
#include "spectralquant/quantize/grid_tensors.h"
#include "spectralquant/quantize/method.h"
#include "spectralquant/quantize/quadratic.h"
#include "spectralquant/quantize/tensor_factor.h"
#include "spectralquant/quantize/warp_kernels.h"

namespace spectralquant::quantize {
namespace {

using format::GridMatrix;
using torch::Tensor;
using warp::kLanes;

/// Rows coupled by G are proposed in interleaved groups, so large that the squared correlations of
/// a row with the others of its group add up to this: more, and moves that were good alone are bad
/// together. Each group costs launches, so their number is bounded.
constexpr double kGroupCorrelation = 0.3;
constexpr std::int64_t kMaxGroups = 48;
/// Rows whose exact objective is taken at once: bounds the float64 copies of a large embedding.
constexpr std::int64_t kObjectiveRows = 16384;

/// Steps on the device, filled up to whole sets of 32 with the pair itself: [3, n_sets · 32].
Tensor to_device(const Step* steps, int n, torch::Device device) {
  const std::int64_t width = (n + kLanes - 1) / kLanes * kLanes;
  Tensor out = torch::zeros({3, width});
  out[0].fill_(1);
  for (int k = 0; k < n; ++k) {
    out[0][k] = steps[k].flip;
    out[1][k] = steps[k].up;
    out[2][k] = steps[k].min_up;
  }
  return out.to(device);
}

warp::Offsets view(const Tensor& steps) {
  return {steps[0].data_ptr<float>(), steps[1].data_ptr<float>(), steps[2].data_ptr<float>(),
          static_cast<int>(steps.size(1) / kLanes)};
}

/// The matrix in work, on the device.
struct State {
  Tensor target, error;
  GridTensors grid;
  Numbers numbers;

  State(const Tensor& t, const GridMatrix& start)
      : target(t),
        error(torch::empty_like(t)),
        grid(to_tensors(start, t.device())),
        numbers(numbers_of(*start.grid)) {}

  warp::Cells cells() const {
    return {target.data_ptr<float>(),
            error.data_ptr<float>(),
            grid.code.data_ptr<std::int8_t>(),
            grid.scale.data_ptr<std::int8_t>(),
            grid.min.data_ptr<std::int8_t>(),
            grid.d.data_ptr<float>(),
            grid.dmin.data_ptr<float>(),
            target.size(1),
            numbers};
  }
  State copy() const {
    State out = *this;
    for (Tensor* t :
         {&out.error, &out.grid.code, &out.grid.scale, &out.grid.min, &out.grid.d, &out.grid.dmin})
      *t = t->clone();
    return out;
  }
};

/// Room for the proposals of up to n rows.
struct ProposalTensors {
  Tensor code, scale, min, d, dmin, delta, gain;

  ProposalTensors(std::int64_t n, std::int64_t width, std::int64_t block, const Tensor& like)
      : code(torch::empty({n, width}, like.options().dtype(torch::kInt8))),
        scale(torch::empty({n, width / block}, code.options())),
        min(torch::empty_like(scale)),
        d(torch::empty({n}, like.options())),
        dmin(torch::empty_like(d)),
        delta(torch::empty({n, width}, like.options())),
        gain(torch::empty_like(d)) {}
  warp::Proposal view() const {
    return {code.data_ptr<std::int8_t>(), scale.data_ptr<std::int8_t>(),
            min.data_ptr<std::int8_t>(),  d.data_ptr<float>(),
            dmin.data_ptr<float>(),       delta.data_ptr<float>(),
            gain.data_ptr<float>()};
  }
};

/// Exact objective of an error: tr(G E H Eᵀ) + Σ f e C eᵀ, in float64. error: [R, C] float32; h:
/// [C, C] or [C].
double exact_objective(const Tensor& error, const Tensor& c_error, const Tensor& h, const Tensor& g,
                       const Tensor& frequency, const Tensor& c) {
  double total = 0;
  const auto times = [](const Tensor& e, const Tensor& moment) {
    return moment.dim() == 1 ? e * moment : e.mm(moment);
  };
  const Tensor h64 = h.to(torch::kFloat64);
  if (g.defined()) {
    const Tensor e = error.to(torch::kFloat64);
    total += (g.to(torch::kFloat64).mm(e) * times(e, h64)).sum().item<double>();
  } else {
    for (std::int64_t r = 0; r < error.size(0); r += kObjectiveRows) {
      const Tensor e = error.slice(0, r, r + kObjectiveRows).to(torch::kFloat64);
      total += (e * times(e, h64)).sum().item<double>();
    }
  }
  if (!c.defined()) return total;
  const Tensor c64 = c.to(torch::kFloat64);
  for (std::int64_t r = 0; r < error.size(0); r += kObjectiveRows) {
    const Tensor e = c_error.slice(0, r, r + kObjectiveRows).to(torch::kFloat64),
                 f = frequency.slice(0, r, r + kObjectiveRows).to(torch::kFloat64);
    total += ((e * e.mm(c64)).sum(1) * f).sum().item<double>();
  }
  return total;
}

/// False when the moments say nothing or too little for this solver.
bool has_moments(const Problem& problem) {
  const auto positive = [](const Tensor& diagonal) {
    return diagonal.to(torch::kFloat64).mean().item<double>() > 0;
  };
  return problem.h.dim() == 2 && positive(problem.h.diagonal()) &&
         (!problem.g.defined() || positive(problem.g.diagonal()));
}

template <class F>
class BatchedSolver {
  static constexpr std::int64_t kBlock = F::kBlock, kSuper = F::kSuper;

 public:
  BatchedSolver(const Problem& problem, const SolverOptions& options, torch::Device device)
      : options_(options), device_(device), launcher_{!device.is_cpu(), options.n_threads} {
    const auto here = [&](const Tensor& t) {
      return t.defined() ? t.to(device, torch::kFloat32).contiguous() : Tensor();
    };
    target_ = here(problem.target);
    h_exact_ = here(problem.h);
    g_exact_ = here(problem.g);
    c_exact_ = here(problem.c);
    frequency_ = here(problem.frequency);
    rows_ = target_.size(0);
    cols_ = target_.size(1);
    // error against c_target is error + this
    if (problem.c_target.defined()) c_shift_ = target_ - here(problem.c_target);
    near_ = to_device(kNeighbours<F>, kCandidates, device);
    Step steps[kMaxSteps];
    const int n_steps =
        steps_within(options.live_scale_radius, F::kHasMin, F::kHasSignedSteps, steps);
    wide_ = to_device(steps, n_steps, device);
    damp();
    factor_blocks();
  }

  State state(const GridMatrix& start) {
    State state(target_, start);
    launcher_.decode(state.cells(), all_rows());
    return state;
  }

  double objective(const State& state) const {
    const Tensor c_error = c_shift_.defined() ? state.error + c_shift_ : state.error;
    return exact_objective(state.error, c_error, h_exact_, g_exact_, frequency_, c_exact_);
  }

  void start(State& state) {
    for (std::size_t bucket = 0; bucket < bucket_weight_.size(); ++bucket) {
      const Tensor index = bucket_rows_[bucket];
      if (index.defined() && index.numel() == 0) continue;
      Tensor h = h_.to(torch::kFloat64);
      if (c_.defined()) h = h + bucket_weight_[bucket] * c_.to(torch::kFloat64);
      const Tensor u = inverse_factor(h).to(torch::kFloat32);
      const warp::Rows rows{index.defined() ? index.data_ptr<std::int32_t>() : nullptr, 0, 1,
                            index.defined() ? index.numel() : rows_};
      const Tensor index64 = index.defined() ? index.to(torch::kInt64) : Tensor();
      Tensor tau = target_.clone(), error = torch::empty({rows.n, kBlock}, target_.options());
      for (std::int64_t b = 0; b < cols_ / kBlock; ++b) {
        const std::int64_t first = b * kBlock, behind = first + kBlock;
        const Tensor block = u.slice(0, first, behind).slice(1, first, behind).contiguous();
        launcher_.start_block(state.cells(), rows, b, tau.data_ptr<float>(),
                              block.data_ptr<float>(), view(wide_), error.data_ptr<float>());
        if (behind == cols_) continue;
        const Tensor push = u.slice(0, first, behind).slice(1, behind);
        if (index64.defined()) {
          tau.slice(1, behind).index_add_(0, index64, error.mm(push), -1);
        } else {
          tau.slice(1, behind).addmm_(error, push, 1, -1);
        }
      }
    }
    launcher_.decode(state.cells(), all_rows());
  }

  /// One round. Groups of coupled rows are taken one after the other, each through all its steps:
  /// later rows make good what earlier ones left.
  void improve(State& state) {
    const std::int64_t n_groups = coupled() ? groups_ : 1;
    Tensor eh;
    if (coupled()) eh = state.error.mm(h_);
    for (std::int64_t first = 0; first < n_groups; ++first) {
      Group group{first, n_groups, (rows_ - first + n_groups - 1) / n_groups, {}, {}, {}};
      if (coupled()) {
        group.gradient = group.of(coupling_).mm(eh);
        group.before = group.of(state.error).clone();
        group.coupling = group.of(coupling_).slice(1, first, rows_, n_groups).contiguous();
      }
      for (int sweep = 0; sweep < options_.sweeps; ++sweep) {
        for (std::int64_t b = 0; b < cols_ / kBlock; ++b) move(state, group, b * kBlock, kBlock);
      }
      if (F::kHasScales && options_.super_scale_search) {
        for (std::int64_t s = 0; s < cols_ / kSuper; ++s) move(state, group, s * kSuper, kSuper);
      }
      if (coupled()) group.of(eh).copy_(group.of(state.error).mm(h_));
    }
  }

 private:
  warp::Rows all_rows() const { return {nullptr, 0, 1, rows_}; }
  bool coupled() const { return coupling_.defined(); }

  /// Damped moments, rows in units of their own g_rr, weights of the second term in buckets.
  void damp() {
    const double h_mean = h_exact_.diagonal().to(torch::kFloat64).mean().item<double>();
    h_ = h_exact_.clone();
    h_.diagonal().add_(std::max(options_.damping, kLeastDamping) * h_mean);
    Tensor g_diagonal = torch::ones({rows_}, target_.options());
    if (g_exact_.defined()) {
      g_diagonal = g_exact_.diagonal() +
                   std::max(options_.output_damping, kLeastDamping) * g_exact_.diagonal().mean();
      coupling_ = g_exact_ / g_diagonal.unsqueeze(1);
      coupling_.diagonal().fill_(1);
      // of correlations, pairs twice
      const double squares =
          (coupling_ * coupling_.t()).sum().item<double>() - static_cast<double>(rows_);
      const double of_pair =
          std::max(1e-12, squares / (static_cast<double>(rows_) * std::max<double>(1, rows_ - 1.)));
      groups_ = std::clamp<std::int64_t>(
          static_cast<std::int64_t>(rows_ / (1 + kGroupCorrelation / of_pair)) + 1, 1,
          std::min(kMaxGroups, rows_));
    }
    bucket_weight_ = {0};
    bucket_rows_ = {Tensor()};
    if (!c_exact_.defined()) return;
    c_ = c_exact_;
    const Tensor steps = ((frequency_ / g_diagonal).clamp(1e-18, 1e18).log2() * 2).round();
    const Tensor on_cpu = steps.to(torch::kCPU, torch::kInt32);
    weight_ = (steps / 2).exp2();
    std::map<int, std::int32_t> number;  // of a bucket by its power
    for (std::int64_t r = 0; r < rows_; ++r) number[on_cpu.data_ptr<std::int32_t>()[r]];
    bucket_weight_.clear();
    bucket_rows_.clear();
    Tensor bucket = torch::zeros({rows_}, torch::kInt32);
    for (auto& [power, n] : number) {
      n = static_cast<std::int32_t>(bucket_weight_.size());
      bucket_weight_.push_back(std::exp2(power / 2.));
      bucket.masked_fill_(on_cpu == power, n);
      bucket_rows_.push_back((on_cpu == power).nonzero().flatten().to(device_, torch::kInt32));
    }
    bucket_ = bucket.to(device_);
  }

  /// Block factors of every bucket: [buckets, C/32, warp::kFactorFloats<F>].
  void factor_blocks() {
    const auto blocks_of = [&](const Tensor& m) {
      return m.view({cols_ / kBlock, kBlock, cols_ / kBlock, kBlock})
          .diagonal(0, 0, 2)
          .permute({2, 0, 1})
          .to(torch::kFloat64);
    };
    std::vector<Tensor> all;
    for (const double weight : bucket_weight_) {
      Tensor h = blocks_of(h_);
      if (c_.defined()) h = h + weight * blocks_of(c_);
      const Tensor u = inverse_factor(h);
      all.push_back(torch::stack({h, u, u.transpose(1, 2)}, 1)
                        .to(torch::kFloat32)
                        .reshape({cols_ / kBlock, warp::kFactorFloats<F>}));
    }
    factors_ = torch::stack(all).contiguous();
  }

  /// Rows first, first + stride, …; with G: half the gradient [n, C] and the error [n, C] when
  /// their turn began, and their coupling [n, n].
  struct Group {
    std::int64_t first, stride, n;
    Tensor gradient, before, coupling;
    Tensor of(const Tensor& t) const { return t.slice(0, first, t.size(0), stride); }
  };

  /// One pass over a group's rows for columns [first, first + width): a block's cells, or a
  /// super-block's scales.
  void move(State& state, const Group& group, std::int64_t first, std::int64_t width) {
    const Tensor h_columns = h_.slice(1, first, first + width).contiguous();
    const Tensor error = group.of(state.error);
    Tensor m = coupled() ? group.gradient.slice(1, first, first + width) +
                               group.coupling.mm((error - group.before).mm(h_columns))
                         : error.mm(h_columns);
    if (c_.defined()) {
      const Tensor c_error = c_shift_.defined() ? error + group.of(c_shift_) : error;
      m = m + c_error.mm(c_.slice(1, first, first + width).contiguous()) *
                  group.of(weight_).unsqueeze(1);
    }
    m = m.contiguous();
    const Tensor factors = factors_.slice(1, first / kBlock, (first + width) / kBlock).contiguous();
    const std::int32_t* bucket = bucket_.defined() ? bucket_.data_ptr<std::int32_t>() : nullptr;
    const warp::Rows rows{nullptr, group.first, group.stride, group.n};
    const ProposalTensors proposal(rows.n, width, kBlock, target_);
    if (width == kBlock) {
      launcher_.propose_block(state.cells(), rows, first / kBlock, m.data_ptr<float>(),
                              factors.data_ptr<float>(), bucket, view(near_), options_.scale_search,
                              proposal.view());
    } else {
      const Tensor h_super = super_moments(first);
      launcher_.propose_super(state.cells(), rows, first / kSuper, m.data_ptr<float>(),
                              factors.data_ptr<float>(), h_super.data_ptr<float>(), bucket,
                              view(near_), proposal.view());
    }
    // Pairs of rows of the group: a row's share counts each of its pairs whole, the other row's
    // too, which makes up for half of m.
    Tensor change = proposal.gain;
    if (coupled()) {
      const Tensor moved = proposal.delta.mm(h_columns.slice(0, first, first + width));
      change = change + ((group.coupling.mm(moved) - moved) * proposal.delta).sum(1);
    }
    const Tensor accept = (change < 0).to(torch::kUInt8);
    launcher_.commit(state.cells(), rows, first, static_cast<int>(width),
                     accept.data_ptr<std::uint8_t>(), proposal.view());
  }

  /// H of every bucket within a super-block: [buckets, 256, 256].
  Tensor super_moments(std::int64_t first) const {
    const auto part = [&](const Tensor& m) {
      return m.slice(0, first, first + kSuper).slice(1, first, first + kSuper);
    };
    std::vector<Tensor> all;
    for (const double weight : bucket_weight_)
      all.push_back(c_.defined() ? part(h_) + weight * part(c_) : part(h_));
    return torch::stack(all).contiguous();
  }

  SolverOptions options_;
  torch::Device device_;
  warp::Launcher<F> launcher_;
  std::int64_t rows_ = 0, cols_ = 0, groups_ = 1;
  Tensor target_, h_exact_, g_exact_, c_exact_, frequency_, c_shift_;  ///< as given
  /// h_ damped; coupling_ = G in units of each row's g_rr; weight_ of c_ by row
  Tensor h_, c_, coupling_, weight_;
  std::vector<double> bucket_weight_;  ///< weights of c_, rounded
  std::vector<Tensor> bucket_rows_;    ///< int32; undefined: all rows
  Tensor bucket_, factors_, near_, wide_;
};

}  // namespace

bool has_batched_kernels(torch::Device device) {
#if defined(SPECTRALQUANT_CUDA)
  return device.is_cpu() || device.is_cuda();
#else
  return device.is_cpu();
#endif
}

std::string_view name_of_solver(torch::Device device) {
  return device.is_cpu() || !has_batched_kernels(device) ? "rows" : "batched";
}

namespace {

template <class F>
Solution solve_in(const Problem& problem, const SolverOptions& options, torch::Device device) {
  // kernels are launched on the present device, which need not be the tensors' own
  const c10::DeviceGuard guard(device);
  const Quadratic checked(problem);
  const auto rounded = [&](const float* importance) {
    return format::round_like_llama(*problem.grid, checked.target(), checked.rows(), checked.cols(),
                                    importance, options.n_threads);
  };
  BatchedSolver<F> solver(problem, options, device);
  Solution solution;
  const State plain = solver.state(rounded(nullptr)),
              weighted = solver.state(rounded(checked.h_diagonal().data()));
  State best = weighted;
  solution.plain_objective = solver.objective(plain);
  solution.imatrix_objective = solver.objective(weighted);
  double least = solution.imatrix_objective;
  const auto keep_better = [&](const State& state, double objective) {
    if (objective < least) best = state, least = objective;
  };
  keep_better(plain, solution.plain_objective);
  State state = (options.feedback ? weighted : best).copy();
  if (options.feedback) solver.start(state);
  solution.objective_start = solver.objective(state);
  keep_better(state.copy(), solution.objective_start);
  for (int round = 0; round < options.rounds; ++round) {
    solver.improve(state);
    keep_better(state.copy(), solver.objective(state));
  }
  solution.matrix = to_matrix(*problem.grid, best.grid);
  solution.objective = objective_on(problem, solution.matrix, device);
  return solution;
}

}  // namespace

Solution solve_batched(const Problem& problem, const SolverOptions& options, torch::Device device) {
  torch::NoGradGuard no_grad;
  { const Quadratic checked(problem); }
  if (!has_moments(problem)) return solve(problem, options);
  return with_shape(*problem.grid, [&](auto shape) {
    return solve_in<decltype(shape)>(problem, options, device);
  });
}

double objective_on(const Problem& problem, const GridMatrix& candidate, torch::Device device) {
  torch::NoGradGuard no_grad;
  Tensor values = torch::empty({candidate.rows, candidate.cols}, torch::kFloat32);
  candidate.decode(0, candidate.rows, values.data_ptr<float>());
  const auto here = [&](const Tensor& t) { return t.defined() ? t.to(device) : Tensor(); };
  values = values.to(device);
  const Tensor error = values - here(problem.target),
               c_error = problem.c_target.defined() ? values - here(problem.c_target) : error;
  return exact_objective(error, c_error, here(problem.h), here(problem.g), here(problem.frequency),
                         here(problem.c));
}

}  // namespace spectralquant::quantize
