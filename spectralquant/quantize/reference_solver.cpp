#include "spectralquant/quantize/reference_solver.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "spectralquant/format/round.h"
#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/quantize/method.h"
#include "spectralquant/quantize/quadratic.h"
#include "spectralquant/quantize/shape.h"

namespace spectralquant::quantize {
namespace {

using format::Grid;
using Vector = std::vector<double>;

/// Square matrix.
struct Matrix {
  int n = 0;
  Vector at;
  explicit Matrix(int n) : n(n), at(static_cast<std::size_t>(n) * n) {}
  double& operator()(int i, int j) { return at[static_cast<std::size_t>(i) * n + j]; }
  double operator()(int i, int j) const { return at[static_cast<std::size_t>(i) * n + j]; }
};

/// u upper with inverse(a) = uᵀ u: a = b bᵀ with b upper, u = b⁻¹.
Matrix inverse_root(const Matrix& a) {
  const int n = a.n;
  Matrix b(n), u(n);
  for (int j = n - 1; j >= 0; --j) {
    double s = a(j, j);
    for (int k = j + 1; k < n; ++k) s -= b(j, k) * b(j, k);
    b(j, j) = std::sqrt(std::max(s, 1e-7 * a(j, j) + 1e-300));
    for (int i = 0; i < j; ++i) {
      double t = a(i, j);
      for (int k = j + 1; k < n; ++k) t -= b(i, k) * b(j, k);
      b(i, j) = t / b(j, j);
    }
  }
  for (int j = 0; j < n; ++j) {
    u(j, j) = 1 / b(j, j);
    for (int i = j - 1; i >= 0; --i) {
      double t = 0;
      for (int k = i + 1; k <= j; ++k) t += b(i, k) * u(k, j);
      u(i, j) = -t / b(i, i);
    }
  }
  return u;
}

Matrix part(const Matrix& a, int first, int n) {
  Matrix result(n);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) result(i, j) = a(first + i, first + j);
  }
  return result;
}

double nearest_in(const format::Range& range, double x) {
  return std::clamp<double>(std::nearbyint(x), range.lowest, range.highest);
}

/// The level nearest to x.
double nearest_level(const Grid& grid, double x) {
  if (!grid.levels) return nearest_in(grid.code, x);
  const std::int8_t* end = grid.levels + grid.levels_count();
  return *std::min_element(grid.levels, end,
                           [&](int a, int b) { return std::fabs(a - x) < std::fabs(b - x); });
}

double to_half(double x) {
  const auto finite = static_cast<float>(std::clamp<double>(x, -kLargestHalf, kLargestHalf));
  return static_cast<double>(gguf::half_to_float(gguf::float_to_half(finite)));
}

/// A step, or d, that values can be divided by.
bool is_usable(const Grid& grid, double step) {
  return grid.has_signed_steps() ? step != 0 : step > 0;
}

/// What a block's values are computed with.
struct Scaling {
  double d;
  int scale, min;
};

/// Moves to a candidate. False if it is out of range, or the block would have no step.
bool take_step(const Grid& grid, const Step& step, Scaling& of) {
  if (!grid.has_scales()) {
    const auto share = static_cast<double>(numbers_of(grid).step_of_d);
    const double d = to_half(of.d * (step.flip + step.up * share));
    if (!is_usable(grid, d)) return false;
    of.d = d;
    return true;
  }
  const int scale = step.flip * of.scale + step.up, min = of.min + step.min_up;
  const auto inside = [](const format::Range& range, int x) {
    return range.lowest <= x && x <= range.highest;
  };
  if (scale == 0 || !inside(grid.scale, scale) || !inside(grid.min, min)) return false;
  of.scale = scale;
  of.min = min;
  return true;
}

/// One row and its quadratic form: e hr eᵀ + 2 <m0, e>; m is half its gradient at the present
/// values.
struct Row {
  const Matrix* form;  ///< hr
  const Grid* grid;
  Vector code;  ///< the code, or its level
  Vector value, m, d, dmin;
  std::vector<int> scale, min;

  Row(const Matrix& hr, const format::GridMatrix& from, int r)
      : form(&hr), grid(from.grid), m(hr.n) {
    const int n = hr.n, blocks = n / grid->block, supers = n / grid->super_block;
    for (int i = 0; i < n; ++i) code.push_back(grid->level(from.codes[r * n + i]));
    scale.assign(from.scales.begin() + r * blocks, from.scales.begin() + (r + 1) * blocks);
    min.resize(blocks);
    dmin.resize(supers);
    for (int s = 0; s < supers; ++s)
      d.push_back(to_half(gguf::half_to_float(from.d[r * supers + s])));
    if (grid->has_min()) {
      min.assign(from.mins.begin() + r * blocks, from.mins.begin() + (r + 1) * blocks);
      for (int s = 0; s < supers; ++s)
        dmin[s] = to_half(gguf::half_to_float(from.dmin[r * supers + s]));
    }
    value.resize(n);
    for (int i = 0; i < n; ++i) value[i] = decoded(i);
  }

  void store(format::GridMatrix& to, int r) const {
    const int n = form->n, blocks = n / grid->block, supers = n / grid->super_block;
    for (int i = 0; i < n; ++i) {
      int number = grid->code.lowest;
      while (grid->level(number) != code[i]) ++number;
      to.codes[r * n + i] = static_cast<std::int8_t>(number);
    }
    for (int b = 0; b < blocks; ++b) {
      to.scales[r * blocks + b] = static_cast<std::int8_t>(scale[b]);
      if (grid->has_min()) to.mins[r * blocks + b] = static_cast<std::int8_t>(min[b]);
    }
    for (int s = 0; s < supers; ++s) {
      to.d[r * supers + s] = gguf::float_to_half(static_cast<float>(d[s]));
      if (grid->has_min())
        to.dmin[r * supers + s] = gguf::float_to_half(static_cast<float>(dmin[s]));
    }
  }

  double step(int block) const { return d[block / grid->blocks()] * scale[block]; }
  double offset(int block) const { return dmin[block / grid->blocks()] * min[block]; }
  double decoded(int i) const { return code[i] * step(i / grid->block) - offset(i / grid->block); }

  Scaling scaling(int block) const { return {d[block / grid->blocks()], scale[block], min[block]}; }
  void set_scaling(int block, const Scaling& to) {
    d[block / grid->blocks()] = to.d;
    scale[block] = to.scale;
    min[block] = to.min;
  }

  /// Sets value i and moves the gradient along.
  void set_value(int i, double to) {
    const double delta = to - value[i];
    value[i] = to;
    if (delta == 0) return;
    for (int j = 0; j < form->n; ++j) m[j] += delta * (*form)(i, j);
  }
};

/// Rounds `target` (a block's values) column by column, each error made good by the columns behind.
/// Returns the loss Σ e².
double feedback(const Grid& grid, const Matrix& u, Vector target, double step, double offset,
                Vector& code, Vector& error) {
  double loss = 0;
  for (int i = 0; i < grid.block; ++i) {
    code[i] = nearest_level(grid, is_usable(grid, step) ? (target[i] + offset) / step : 0);
    error[i] = (target[i] - (code[i] * step - offset)) / u(i, i);
    loss += error[i] * error[i];
    for (int j = i + 1; j < grid.block; ++j) target[j] -= error[i] * u(i, j);
  }
  return loss;
}

/// Feedback over the row; in every block (scale, min) within ± radius of the rounded ones, on the
/// row as compensated so far.
void start(Row& row, Vector target, const Matrix& u, int radius) {
  const Grid& grid = *row.grid;
  const int width = grid.block;
  Step steps[kMaxSteps];
  const int n_steps = steps_within(radius, grid.has_min(), grid.has_signed_steps(), steps);
  for (int b = 0; b < u.n / width; ++b) {
    const Matrix block = part(u, b * width, width);
    const Vector w(target.begin() + b * width, target.begin() + (b + 1) * width);
    const Scaling first = row.scaling(b);
    Vector code(width), error(width), best_code, best_error;
    double best = HUGE_VAL;
    for (int k = 0; k < n_steps; ++k) {
      Scaling trial = first;
      if (!take_step(grid, steps[k], trial) && k > 0) continue;
      const double loss = feedback(grid, block, w, trial.d * trial.scale,
                                   row.dmin[b / grid.blocks()] * trial.min, code, error);
      if (loss < best) best = loss, best_code = code, best_error = error, row.set_scaling(b, trial);
    }
    for (int i = 0; i < width; ++i) {
      row.code[b * width + i] = best_code[i];
      for (int j = (b + 1) * width; j < u.n; ++j) target[j] -= best_error[i] * u(b * width + i, j);
    }
  }
}

/// One pass of coordinate descent over the codes of a block.
void descend(Row& row, int b) {
  const double step = row.step(b);
  if (!is_usable(*row.grid, step)) return;
  for (int i = b * row.grid->block; i < (b + 1) * row.grid->block; ++i) {
    if (!((*row.form)(i, i) > 0)) continue;
    row.code[i] = nearest_level(*row.grid, row.code[i] - row.m[i] / ((*row.form)(i, i) * step));
    row.set_value(i, row.decoded(i));
  }
}

/// Moves block b to the best candidate near `from`, dmin already set in the row; unless `force`,
/// only if it gains. Returns the change of the objective.
double search_block(Row& row, int b, const Scaling& from, bool force, int polish) {
  const Row before = row;
  const Grid& grid = *row.grid;
  const int width = grid.block;
  const Matrix h = part(*row.form, b * width, width), u = inverse_root(h);
  // value − h⁻¹ m is the best real point; |u m|² how far the objective is above it.
  Vector um(width), target(width), code(width), error(width), best_code;
  double now = 0, best = HUGE_VAL;
  for (int i = 0; i < width; ++i) {
    for (int j = i; j < width; ++j) um[i] += u(i, j) * row.m[b * width + j];
    now += um[i] * um[i];
  }
  for (int j = 0; j < width; ++j) {
    target[j] = row.value[b * width + j];
    for (int i = 0; i <= j; ++i) target[j] -= u(i, j) * um[i];
  }
  for (const Step& step : grid.has_signed_steps() ? kSignedSteps : kPairSteps) {
    Scaling trial = from;
    take_step(grid, step, trial);
    const double loss = feedback(grid, u, target, trial.d * trial.scale,
                                 row.dmin[b / grid.blocks()] * trial.min, code, error);
    if (loss < best) best = loss, best_code = code, row.set_scaling(b, trial);
  }
  if (!force && best >= now) {
    row = before;
    return 0;
  }
  for (int i = 0; i < width; ++i) {
    row.code[b * width + i] = best_code[i];
    row.set_value(b * width + i, row.decoded(b * width + i));
  }
  for (int k = 0; k < polish; ++k) descend(row, b);
  double gain = 0;  // 2 <m, Δ> + Δ h Δᵀ = <m + m', Δ>
  for (int i = b * width; i < (b + 1) * width; ++i)
    gain += (before.m[i] + row.m[i]) * (row.value[i] - before.value[i]);
  if (!force && gain >= 0) {
    row = before;
    return 0;
  }
  return gain;
}

void search_super(Row& row, int s) {
  const Grid& grid = *row.grid;
  for (int k = 0; k < (grid.has_min() ? 2 : 1) * kRatios; ++k) {
    const Row before = row;
    double& changed = k < kRatios ? row.d[s] : row.dmin[s];
    const double old = changed;
    changed = to_half(old * static_cast<double>(kRatio[k % kRatios]));
    if (changed == old || !is_usable(grid, row.d[s])) {
      row = before;
      continue;
    }
    double gain = 0;
    for (int b = s * grid.blocks(); b < (s + 1) * grid.blocks(); ++b) {
      const auto rescaled = [&](const format::Range& range, int number, double from, double to) {
        return static_cast<int>(nearest_in(range, to != 0 ? number * from / to : 0));
      };
      gain += search_block(row, b,
                           {row.d[s], rescaled(grid.scale, row.scale[b], before.d[s], row.d[s]),
                            rescaled(grid.min, row.min[b], before.dmin[s], row.dmin[s])},
                           true, kSuperPolish);
    }
    if (!(gain < 0)) row = before;
  }
}

void improve(Row& row, const SolverOptions& options) {
  const int blocks = row.form->n / row.grid->block;
  for (int sweep = 0; sweep < options.sweeps; ++sweep) {
    for (int b = 0; b < blocks; ++b) {
      descend(row, b);
      if (options.scale_search) search_block(row, b, row.scaling(b), false, kBlockPolish);
    }
  }
  if (!options.super_scale_search || !row.grid->has_scales()) return;
  for (int s = 0; s < blocks / row.grid->blocks(); ++s) search_super(row, s);
}

double mean_diagonal(const Matrix& a) {
  double total = 0;
  for (int i = 0; i < a.n; ++i) total += a(i, i);
  return total / a.n;
}

/// A problem's moments in double: where there is none, zeros for C and the identity for G.
struct Moments {
  Matrix h, c, g;

  explicit Moments(const Quadratic& q)
      : h(static_cast<int>(q.cols())),
        c(static_cast<int>(q.cols())),
        g(static_cast<int>(q.rows())) {
    for (int i = 0; i < h.n; ++i) {
      for (int j = 0; j < h.n; ++j) {
        const auto at = static_cast<std::size_t>(i) * h.n + j;
        h(i, j) = q.diagonal() ? (i == j ? q.h()[i] : 0) : q.h()[at];
        c(i, j) = q.tied() ? q.c()[at] : 0;
      }
    }
    for (int i = 0; i < g.n; ++i) {
      for (int j = 0; j < g.n; ++j)
        g(i, j) = q.two_sided() ? q.g()[static_cast<std::size_t>(i) * g.n + j] : i == j;
    }
  }
  bool say_something() const { return mean_diagonal(h) > 0 && mean_diagonal(g) > 0; }
  void damp(const Quadratic& q, const SolverOptions& options) {
    const double ridge = options.damping * mean_diagonal(h),
                 output_ridge = q.two_sided() ? options.output_damping * mean_diagonal(g) : 0;
    for (int i = 0; i < h.n; ++i) h(i, i) += ridge;
    for (int r = 0; r < g.n; ++r) g(r, r) += output_ridge;
  }
  double weight(const Quadratic& q, int r) const {
    return q.tied() ? q.frequency()[r] / g(r, r) : 0.;
  }
  /// H_r = H + weight · C
  Matrix of_row(const Quadratic& q, int r) const {
    Matrix out = h;
    for (std::size_t i = 0; i < out.at.size(); ++i) out.at[i] += weight(q, r) * c.at[i];
    return out;
  }
};

void start_rows(const Quadratic& q, const Moments& moments, int radius,
                format::GridMatrix& matrix) {
  const Matrix shared = inverse_root(moments.h);
  for (int r = 0; r < moments.g.n; ++r) {
    Row row(moments.h, matrix, r);
    const float* target = q.target() + static_cast<std::ptrdiff_t>(r) * moments.h.n;
    start(row, Vector(target, target + moments.h.n),
          q.tied() ? inverse_root(moments.of_row(q, r)) : shared, radius);
    row.store(matrix, r);
  }
}

/// Rounds over all rows, one after the other, each given the errors of all others.
void improve_rows(const Quadratic& q, const Moments& moments, const SolverOptions& options,
                  format::GridMatrix& matrix) {
  const int rows = moments.g.n, cols = moments.h.n;
  std::vector<Vector> error(rows, Vector(cols));
  std::vector<float> value(cols);
  const auto read_error = [&](int r) {
    matrix.decode(r, 1, value.data());
    for (int i = 0; i < cols; ++i)
      error[r][i] = static_cast<double>(value[i]) - q.target()[r * cols + i];
  };
  for (int r = 0; r < rows; ++r) read_error(r);
  for (int round = 0; round < options.rounds; ++round) {
    for (int r = 0; r < rows; ++r) {
      const Matrix form = moments.of_row(q, r);
      Row row(form, matrix, r);
      Vector mixed(cols);  // Σ_k G_rk e_k / G_rr
      for (int k = 0; k < rows; ++k) {
        for (int i = 0; i < cols; ++i) mixed[i] += moments.g(r, k) / moments.g(r, r) * error[k][i];
      }
      for (int i = 0; i < cols; ++i) {
        const double e2 = row.value[i] - q.c_target()[r * cols + i];
        for (int j = 0; j < cols; ++j)
          row.m[j] += mixed[i] * moments.h(i, j) + moments.weight(q, r) * e2 * moments.c(i, j);
      }
      improve(row, options);
      row.store(matrix, r);
      read_error(r);
    }
  }
}

}  // namespace

Solution solve_reference(const Problem& problem, const SolverOptions& options) {
  const Quadratic q(problem);
  Moments moments(q);
  const auto rounded = [&](const float* importance) {
    return format::round_like_llama(*problem.grid, q.target(), q.rows(), q.cols(), importance, 1);
  };
  const format::GridMatrix plain = rounded(nullptr), weighted = rounded(q.h_diagonal().data());
  const bool solves = moments.say_something();
  Solution solution;
  solution.matrix = solves ? weighted : plain;
  if (solves) {
    moments.damp(q, options);
    if (options.feedback) start_rows(q, moments, options.live_scale_radius, solution.matrix);
  }
  solution.objective_start = objective(problem, solution.matrix);
  if (solves) improve_rows(q, moments, options, solution.matrix);
  solution.objective = objective(problem, solution.matrix);
  for (const format::GridMatrix* other : {&plain, &weighted}) {
    const double cost = objective(problem, *other);
    if (cost < solution.objective) solution.objective = cost, solution.matrix = *other;
  }
  return solution;
}

}  // namespace spectralquant::quantize
