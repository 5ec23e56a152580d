#include "spectralquant/quantize/reference_solver.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "spectralquant/gguf/codec/half.h"
#include "spectralquant/quantize/quadratic.h"
#include "spectralquant/quantize/round.h"

namespace spectralquant::quantize {
namespace {

constexpr int kBlock = 32, kSuper = 256;
constexpr double kRatios[] = {0.96, 0.985, 1.015, 1.04};
// The (scale, min) steps of the block search: the pair itself, its neighbours, the nearest beyond.
constexpr int kSteps[16][2] = {{0, 0},   {1, 0},  {-1, 0}, {0, 1}, {0, -1},  {1, 1},
                               {-1, -1}, {1, -1}, {-1, 1}, {2, 1}, {-2, -1}, {2, 0},
                               {-2, 0},  {0, 2},  {0, -2}, {1, 2}};

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

double nearest_code(double x) { return std::clamp(std::nearbyint(x), 0., 15.); }
double to_half(double x) {
  return x > 65504
             ? 65504.
             : static_cast<double>(gguf::half_to_float(gguf::float_to_half(static_cast<float>(x))));
}

/// One row and its quadratic form: e hr eᵀ + 2 <m0, e>; m is half its gradient at the present
/// values.
struct Row {
  const Matrix* form;  ///< hr
  Vector code, value, m, d, dmin;
  std::vector<int> scale, min;

  Row(const Matrix& hr, const Q4KMatrix& from, int r) : form(&hr), m(hr.n) {
    const int n = hr.n;
    code.assign(from.code.begin() + r * n, from.code.begin() + (r + 1) * n);
    scale.assign(from.scale.begin() + r * n / kBlock, from.scale.begin() + (r + 1) * n / kBlock);
    min.assign(from.min.begin() + r * n / kBlock, from.min.begin() + (r + 1) * n / kBlock);
    for (int s = r * n / kSuper; s < (r + 1) * n / kSuper; ++s) {
      d.push_back(to_half(gguf::half_to_float(from.d[s])));
      dmin.push_back(to_half(gguf::half_to_float(from.dmin[s])));
    }
    value.resize(n);
    for (int i = 0; i < n; ++i) value[i] = decoded(i);
  }

  void store(Q4KMatrix& to, int r) const {
    const int n = form->n;
    for (int i = 0; i < n; ++i) to.code[r * n + i] = static_cast<std::uint8_t>(code[i]);
    for (int b = 0; b < n / kBlock; ++b) {
      to.scale[r * n / kBlock + b] = static_cast<std::uint8_t>(scale[b]);
      to.min[r * n / kBlock + b] = static_cast<std::uint8_t>(min[b]);
    }
    for (int s = 0; s < n / kSuper; ++s) {
      to.d[r * n / kSuper + s] = gguf::float_to_half(static_cast<float>(d[s]));
      to.dmin[r * n / kSuper + s] = gguf::float_to_half(static_cast<float>(dmin[s]));
    }
  }

  double step(int block) const { return d[block / 8] * scale[block]; }
  double offset(int block) const { return dmin[block / 8] * min[block]; }
  double decoded(int i) const { return code[i] * step(i / kBlock) - offset(i / kBlock); }

  /// Sets value i and moves the gradient along.
  void set_value(int i, double to) {
    const double delta = to - value[i];
    value[i] = to;
    if (delta == 0) return;
    for (int j = 0; j < form->n; ++j) m[j] += delta * (*form)(i, j);
  }
};

/// Rounds `target` (32 values) column by column, each error made good by the columns behind.
/// Returns the loss Σ e².
double feedback(const Matrix& u, Vector target, double step, double offset, Vector& code,
                Vector& error) {
  double loss = 0;
  for (int i = 0; i < kBlock; ++i) {
    code[i] = step > 0 ? nearest_code((target[i] + offset) / step) : 0;
    error[i] = (target[i] - (code[i] * step - offset)) / u(i, i);
    loss += error[i] * error[i];
    for (int j = i + 1; j < kBlock; ++j) target[j] -= error[i] * u(i, j);
  }
  return loss;
}

/// Feedback over the row; in every block (scale, min) within ± radius of the rounded ones, on the
/// row as compensated so far.
void start(Row& row, Vector target, const Matrix& u, int radius) {
  for (int b = 0; b < u.n / kBlock; ++b) {
    const Matrix block = part(u, b * kBlock, kBlock);
    const Vector w(target.begin() + b * kBlock, target.begin() + (b + 1) * kBlock);
    const int scale0 = row.scale[b], min0 = row.min[b];
    Vector code(kBlock), error(kBlock), best_code, best_error;
    double best = HUGE_VAL;
    for (int a = -radius; a <= radius; ++a) {
      for (int c = -radius; c <= radius; ++c) {
        const int scale = scale0 + a, min = min0 + c;
        if ((a || c) && (scale < 1 || scale > 63 || min < 0 || min > 63)) continue;
        const double loss =
            feedback(block, w, row.d[b / 8] * scale, row.dmin[b / 8] * min, code, error);
        if (loss < best)
          best = loss, best_code = code, best_error = error, row.scale[b] = scale, row.min[b] = min;
      }
    }
    for (int i = 0; i < kBlock; ++i) {
      row.code[b * kBlock + i] = best_code[i];
      for (int j = (b + 1) * kBlock; j < u.n; ++j)
        target[j] -= best_error[i] * u(b * kBlock + i, j);
    }
  }
}

/// One pass of coordinate descent over the codes of a block.
void descend(Row& row, int b) {
  const double step = row.step(b);
  if (!(step > 0)) return;
  for (int i = b * kBlock; i < (b + 1) * kBlock; ++i) {
    if (!((*row.form)(i, i) > 0)) continue;
    row.code[i] = nearest_code(row.code[i] - row.m[i] / ((*row.form)(i, i) * step));
    row.set_value(i, row.decoded(i));
  }
}

/// Moves block b to the best (scale, min) near (scale0, min0) under d, dmin already set in the row;
/// unless `force`, only if it gains. Returns the change of the objective.
double search_block(Row& row, int b, int scale0, int min0, bool force, int polish) {
  const Row before = row;
  const Matrix h = part(*row.form, b * kBlock, kBlock), u = inverse_root(h);
  // value − h⁻¹ m is the best real point; |u m|² how far the objective is above it.
  Vector um(kBlock), target(kBlock), code(kBlock), error(kBlock), best_code;
  double now = 0, best = HUGE_VAL;
  for (int i = 0; i < kBlock; ++i) {
    for (int j = i; j < kBlock; ++j) um[i] += u(i, j) * row.m[b * kBlock + j];
    now += um[i] * um[i];
  }
  for (int j = 0; j < kBlock; ++j) {
    target[j] = row.value[b * kBlock + j];
    for (int i = 0; i <= j; ++i) target[j] -= u(i, j) * um[i];
  }
  for (const auto& step : kSteps) {
    int scale = scale0 + step[0], min = min0 + step[1];
    if (scale < 1 || scale > 63 || min < 0 || min > 63) scale = scale0, min = min0;
    const double loss =
        feedback(u, target, row.d[b / 8] * scale, row.dmin[b / 8] * min, code, error);
    if (loss < best) best = loss, best_code = code, row.scale[b] = scale, row.min[b] = min;
  }
  if (!force && best >= now) {
    row = before;
    return 0;
  }
  for (int i = 0; i < kBlock; ++i) {
    row.code[b * kBlock + i] = best_code[i];
    row.set_value(b * kBlock + i, row.decoded(b * kBlock + i));
  }
  for (int k = 0; k < polish; ++k) descend(row, b);
  double gain = 0;  // 2 <m, Δ> + Δ h Δᵀ = <m + m', Δ>
  for (int i = b * kBlock; i < (b + 1) * kBlock; ++i)
    gain += (before.m[i] + row.m[i]) * (row.value[i] - before.value[i]);
  if (!force && gain >= 0) {
    row = before;
    return 0;
  }
  return gain;
}

void search_super(Row& row, int s) {
  for (int k = 0; k < 8; ++k) {
    const Row before = row;
    double& changed = k < 4 ? row.d[s] : row.dmin[s];
    const double old = changed;
    changed = to_half(old * static_cast<double>(static_cast<float>(kRatios[k % 4])));
    if (changed == old || !(row.d[s] > 0)) {
      row = before;
      continue;
    }
    double gain = 0;
    for (int b = s * 8; b < s * 8 + 8; ++b) {
      auto rescaled = [&](int number, double from, double to) {
        return to > 0 ? static_cast<int>(std::clamp(std::nearbyint(number * from / to), 0., 63.))
                      : 0;
      };
      gain += search_block(row, b, rescaled(row.scale[b], before.d[s], row.d[s]),
                           rescaled(row.min[b], before.dmin[s], row.dmin[s]), true, 1);
    }
    if (!(gain < 0)) row = before;
  }
}

void improve(Row& row, const SolverOptions& options) {
  const int blocks = row.form->n / kBlock;
  for (int sweep = 0; sweep < options.sweeps; ++sweep) {
    for (int b = 0; b < blocks; ++b) {
      descend(row, b);
      if (options.scale_search) search_block(row, b, row.scale[b], row.min[b], false, 2);
    }
  }
  if (!options.super_scale_search) return;
  for (int s = 0; s < blocks / 8; ++s) search_super(row, s);
}

double mean_diagonal(const Matrix& a) {
  double total = 0;
  for (int i = 0; i < a.n; ++i) total += a(i, i);
  return total / a.n;
}

}  // namespace

Solution solve_reference(const Problem& problem, const SolverOptions& options) {
  const Quadratic q(problem);
  const int rows = static_cast<int>(q.rows()), cols = static_cast<int>(q.cols());
  Matrix h(cols), c(cols), g(rows);
  for (int i = 0; i < cols; ++i) {
    for (int j = 0; j < cols; ++j) {
      h(i, j) =
          q.diagonal() ? (i == j ? q.h()[i] : 0) : q.h()[static_cast<std::size_t>(i) * cols + j];
      c(i, j) = q.tied() ? q.c()[static_cast<std::size_t>(i) * cols + j] : 0;
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < rows; ++j)
      g(i, j) = q.two_sided() ? q.g()[static_cast<std::size_t>(i) * rows + j] : i == j;
  }
  Solution solution;
  const Q4KMatrix plain = round_like_llama(q.target(), rows, cols, nullptr, 1);
  const Q4KMatrix weighted = round_like_llama(q.target(), rows, cols, q.h_diagonal().data(), 1);
  solution.matrix = plain;
  if (mean_diagonal(h) > 0 && mean_diagonal(g) > 0) {
    const double ridge = options.damping * mean_diagonal(h),
                 output_ridge = q.two_sided() ? options.output_damping * mean_diagonal(g) : 0;
    for (int i = 0; i < cols; ++i) h(i, i) += ridge;
    for (int r = 0; r < rows; ++r) g(r, r) += output_ridge;
    solution.matrix = weighted;
    auto weight = [&](int r) { return q.tied() ? q.frequency()[r] / g(r, r) : 0.; };
    auto form_of_row = [&](int r) {
      Matrix hr = h;
      for (std::size_t i = 0; i < hr.at.size(); ++i) hr.at[i] += weight(r) * c.at[i];
      return hr;
    };
    if (options.feedback) {
      const Matrix shared = inverse_root(h);
      for (int r = 0; r < rows; ++r) {
        Row row(h, solution.matrix, r);
        const Vector target(q.target() + r * cols, q.target() + (r + 1) * cols);
        start(row, target, q.tied() ? inverse_root(form_of_row(r)) : shared,
              options.live_scale_radius);
        row.store(solution.matrix, r);
      }
    }
    solution.objective_start = sum(q.row_objectives(solution.matrix, 1));
    std::vector<Vector> error(rows, Vector(cols));
    std::vector<float> value(cols);
    auto read_error = [&](int r) {
      solution.matrix.decode(r, 1, value.data());
      for (int i = 0; i < cols; ++i)
        error[r][i] = static_cast<double>(value[i]) - q.target()[r * cols + i];
    };
    for (int r = 0; r < rows; ++r) read_error(r);
    for (int round = 0; round < options.rounds; ++round) {
      for (int r = 0; r < rows; ++r) {
        const Matrix hr = form_of_row(r);
        Row row(hr, solution.matrix, r);
        Vector mixed(cols);  // Σ_k G_rk e_k / G_rr
        for (int k = 0; k < rows; ++k) {
          for (int i = 0; i < cols; ++i) mixed[i] += g(r, k) / g(r, r) * error[k][i];
        }
        for (int i = 0; i < cols; ++i) {
          const double e2 = row.value[i] - q.c_target()[r * cols + i];
          for (int j = 0; j < cols; ++j) row.m[j] += mixed[i] * h(i, j) + weight(r) * e2 * c(i, j);
        }
        improve(row, options);
        row.store(solution.matrix, r);
        read_error(r);
      }
    }
  }
  solution.objective = sum(q.row_objectives(solution.matrix, 1));
  if (!(mean_diagonal(h) > 0 && mean_diagonal(g) > 0))
    solution.objective_start = solution.objective;
  for (const Q4KMatrix* other : {&plain, &weighted}) {
    const double cost = sum(q.row_objectives(*other, 1));
    if (cost < solution.objective) solution.objective = cost, solution.matrix = *other;
  }
  return solution;
}

}  // namespace spectralquant::quantize
