#include "spectralquant/quantize/fix_columns.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "spectralquant/quantize/grid_tensors.h"
#include "spectralquant/quantize/shape.h"
#include "spectralquant/quantize/tensor_factor.h"

namespace spectralquant::quantize {
namespace {

using torch::Tensor;

/// Columns that are taken in one go: whole blocks of every format.
constexpr std::int64_t kRun = 32;

/// Rows whose candidates are tried at once: on a CPU what stays in its caches.
constexpr std::int64_t kRowsOnCpu = 1024, kRowsOnDevice = 16384;

/// The codes of a format or, where levels are not evenly spaced, these in their place.
class Levels {
 public:
  Levels(const format::Grid& grid, torch::Device device) : grid_(grid) {
    if (!grid.levels) return;
    const Numbers numbers = numbers_of(grid);
    const auto here = [&](const float* first, const float* last) {
      return torch::tensor(std::vector<float>(first, last)).to(device);
    };
    level_ = here(numbers.level, numbers.level + kLevels);
    begin_ = here(numbers.begin + 1, numbers.begin + kLevels);
  }

  /// The nearest to each x.
  Tensor nearest(const Tensor& x) const {
    if (!grid_.levels) return x.round().clamp_(grid_.code.lowest, grid_.code.highest);
    return level_.index({number(x)});
  }
  /// Codes, int8, of what nearest() gave.
  Tensor codes(const Tensor& level) const {
    return (grid_.levels ? number(level) : level).to(torch::kInt8);
  }

 private:
  Tensor number(const Tensor& x) const { return torch::bucketize(x.contiguous(), begin_); }

  const format::Grid& grid_;
  Tensor level_, begin_;  ///< Numbers::level, Numbers::begin but for the first
};

Tensor damped(Tensor a, double share) {
  a = a.clone();
  a.diagonal().add_(share * a.diagonal().mean() + 1e-12);
  return a;
}

/// Scale and min ≥ 0 of each block by weighted least squares over trial steps, as llama.cpp's
/// make_qkx3_quants: x ≈ scale · code − min, codes from 0 to `highest`.
///
/// Shapes   x, weight: [.., block] → two of [..].
std::pair<Tensor, Tensor> fit_with_mins(const Tensor& x, const Tensor& weight, int highest) {
  constexpr int kTrials = 20;
  const auto sum = [](const Tensor& t) { return t.sum(-1, /*keepdim=*/true); };
  const Tensor lowest = x.amin(-1, true).clamp_max(0);
  Tensor range = x.amax(-1, true) - lowest;
  const Tensor some = range > 0;
  range = torch::where(some, range, torch::ones_like(range));
  Tensor scale = range / highest, offset = lowest.clone(), least;
  const Tensor weights = sum(weight), values = sum(weight * x);
  for (int trial = -1; trial <= kTrials; ++trial) {
    const double steps = trial < 0 ? highest : highest - 1 + 0.1 * trial;
    const Tensor code = ((x - lowest) * (steps / range)).round_().clamp_(0, highest);
    if (trial < 0) {
      least = sum(weight * (scale * code + offset - x).square());
      continue;
    }
    const Tensor weighted = weight * code;
    const Tensor codes = sum(weighted), squares = sum(weighted * code),
                 products = sum(weighted * x);
    const Tensor determinant = weights * squares - codes * codes, good = determinant > 0;
    const Tensor divisor = torch::where(good, determinant, torch::ones_like(determinant));
    Tensor s = (weights * products - values * codes) / divisor,
           m = (squares * values - codes * products) / divisor;
    const Tensor above = m > 0;  // a min below 0 does not exist
    s = torch::where(above, products / squares.clamp_min(1e-30), s);
    m = torch::where(above, torch::zeros_like(m), m);
    const Tensor error = sum(weight * (s * code + m - x).square());
    const Tensor better = good.logical_and(error < least);
    scale = torch::where(better, s, scale);
    offset = torch::where(better, m, offset);
    least = torch::where(better, error, least);
  }
  scale = torch::where(some, scale, torch::zeros_like(scale));
  return {scale.squeeze(-1), offset.neg().squeeze(-1)};
}

/// Scale of each block in a format without mins, of either sign, as llama.cpp's make_qx_quants: the
/// value of largest magnitude comes near the lowest level, as levels reach further down than up.
///
/// Shapes   x, weight: [.., block] → [..].
Tensor fit_signed(const Tensor& x, const Tensor& weight, const format::Grid& grid,
                  const Levels& levels) {
  constexpr int kTrials = 9;
  const double lowest = grid.level(grid.code.lowest),
               apart = 0.1 * (grid.level(grid.code.highest) - lowest) / (grid.levels_count() - 1);
  const Tensor largest = x.gather(-1, x.abs().argmax(-1, /*keepdim=*/true)), some = largest != 0,
               divisor = torch::where(some, largest, torch::ones_like(largest));
  Tensor scale, least;
  for (int trial = -kTrials; trial <= kTrials; ++trial) {
    const Tensor q = levels.nearest(x * ((lowest - apart * trial) / divisor)),
                 weighted = weight * q;
    const Tensor s = (weighted * x).sum(-1, true) / (weighted * q).sum(-1, true).clamp_min(1e-30),
                 error = (weight * (s * q - x).square()).sum(-1, true);
    if (!scale.defined()) {
      scale = s, least = error;
      continue;
    }
    const Tensor better = error < least;
    scale = torch::where(better, s, scale);
    least = torch::where(better, error, least);
  }
  return torch::where(some, scale, torch::zeros_like(scale)).squeeze(-1);
}

/// Which of n groups of `width` columns have a fixed one.
std::vector<bool> begun(const Tensor& fixed, std::int64_t width) {
  const Tensor any = fixed.view({-1, width}).amax(1).to(torch::kCPU).contiguous();
  const auto* values = any.data_ptr<std::int8_t>();
  return std::vector<bool>(values, values + any.numel());
}

class Fixer {
 public:
  Fixer(const std::vector<PartialMatrix*>& matrices, const std::vector<std::int64_t>& columns,
        const ColumnMoments& moments, const FixOptions& options)
      : matrices_(matrices),
        columns_(columns),
        options_(options),
        levels_(*matrices.front()->grid, matrices.front()->weight.device()) {
    const PartialMatrix& first = *matrices.front();
    const torch::Device device = first.weight.device();
    grid_ = first.grid;
    cols_ = first.cols();
    const auto here = [&](const Tensor& t) {
      return t.defined() ? t.to(device, torch::kFloat32) : Tensor();
    };
    h_ = here(moments.h);
    c_ = here(moments.c);
    row_weight_ = here(moments.row_weight);
    const auto together = [&](Tensor PartialMatrix::*part) {
      std::vector<Tensor> all;
      for (const PartialMatrix* matrix : matrices) all.push_back((matrix->*part).detach());
      return torch::cat(all).to(torch::kFloat32);
    };
    weight_ = together(&PartialMatrix::weight);
    scale_ = together(&PartialMatrix::scale);
    min_ = together(&PartialMatrix::min);
    d_ = together(&PartialMatrix::d);
    dmin_ = together(&PartialMatrix::dmin);
    scaled_ = begun(first.fixed, grid_->block);
    placed_ = begun(first.fixed, grid_->super_block);
    code_ = torch::empty({static_cast<std::int64_t>(columns.size()), weight_.size(0)},
                         weight_.options());
    index_ = torch::tensor(columns).to(device);
    order_columns(first.fixed);
    make_candidates();
  }

  void run() {
    choose_scales();
    for (const auto& [rows, h] : row_groups()) fix_rows(rows, h);
    store();
  }

 private:
  std::int64_t block_of(std::int64_t column) const { return column / grid_->block; }

  /// The columns to be fixed, then those that stay free.
  void order_columns(const Tensor& fixed) {
    const Tensor on_cpu = fixed.to(torch::kCPU).contiguous();
    std::vector<bool> taken(on_cpu.data_ptr<std::int8_t>(), on_cpu.data_ptr<std::int8_t>() + cols_);
    order_ = columns_;
    for (const std::int64_t column : columns_) {
      TORCH_CHECK(!taken[static_cast<std::size_t>(column)], "a column is fixed twice");
      taken[static_cast<std::size_t>(column)] = true;
    }
    for (std::int64_t i = 0; i < cols_; ++i) {
      if (!taken[static_cast<std::size_t>(i)]) order_.push_back(i);
    }
    permutation_ = torch::tensor(order_).to(fixed.device());
  }

  void make_candidates() {
    std::vector<float> flip, scale, min;
    const int min_radius = grid_->has_min() ? options_.radius : 0;
    for (const float sign : {1.f, -1.f}) {
      if (sign < 0 && !grid_->has_signed_steps()) break;
      for (int s = -options_.radius; s <= options_.radius; ++s) {
        for (int m = -min_radius; m <= min_radius; ++m) {
          flip.push_back(sign);
          scale.push_back(static_cast<float>(s));
          min.push_back(static_cast<float>(m));
        }
      }
    }
    flip_ = torch::tensor(flip).to(weight_.device());
    scale_step_ = torch::tensor(scale).to(weight_.device());
    min_step_ = torch::tensor(min).to(weight_.device());
  }

  /// d and dmin of super-blocks that are begun now, and first scales and mins of blocks that are.
  void choose_scales() {
    std::vector<std::int64_t> blocks, supers;
    const std::int64_t n_blocks = grid_->blocks();
    for (std::int64_t b = 0; b < cols_ / grid_->block; ++b) {
      const bool touched = std::any_of(columns_.begin(), columns_.end(),
                                       [&](std::int64_t c) { return block_of(c) == b; });
      const std::int64_t super = b / n_blocks;
      if (!touched) continue;
      if (!placed_[static_cast<std::size_t>(super)]) {
        if (supers.empty() || supers.back() != super) supers.push_back(super);
      } else if (!scaled_[static_cast<std::size_t>(b)]) {
        blocks.push_back(b);
      }
    }
    for (const std::int64_t super : supers) {
      for (std::int64_t b = super * n_blocks; b < (super + 1) * n_blocks; ++b) blocks.push_back(b);
    }
    const std::int64_t step = weight_.device().is_cpu() ? kRowsOnCpu : kRowsOnDevice;
    if (blocks.empty()) return;
    for (std::int64_t first = 0; first < weight_.size(0); first += step)
      choose_scales(first, std::min(first + step, weight_.size(0)), blocks, supers);
  }

  void choose_scales(std::int64_t first, std::int64_t last, const std::vector<std::int64_t>& blocks,
                     const std::vector<std::int64_t>& supers) {
    const Tensor at = torch::tensor(blocks).to(weight_.device()),
                 super_of = at.div(grid_->blocks(), "floor");
    const Tensor w = weight_.slice(0, first, last);
    const Tensor x = w.view({w.size(0), -1, grid_->block}).index_select(1, at);
    const Tensor spread = w.view({w.size(0), -1, grid_->super_block})
                              .square()
                              .mean(-1)
                              .mul(2)
                              .index_select(1, super_of)
                              .unsqueeze(-1);
    const Tensor importance = h_.diagonal().view({1, -1, grid_->block}).index_select(1, at),
                 weight = importance * (spread + x.square()).sqrt();
    Tensor s, m;
    if (grid_->has_min()) {
      std::tie(s, m) = fit_with_mins(x, weight, grid_->code.highest);
    } else {
      s = fit_signed(x, weight, *grid_, levels_);
    }
    if (!grid_->has_scales()) {
      d_.slice(0, first, last).index_copy_(1, at, round_to_half(s));
      scale_.slice(0, first, last).index_fill_(1, at, 1);
      return;
    }
    const auto place = [&](const Tensor& value, Tensor units, Tensor numbers, format::Range range) {
      place_supers(value, units, supers, static_cast<std::int64_t>(blocks.size()), range);
      const Tensor of_block = units.index_select(1, super_of);
      const Tensor rounded =
          (value / of_block.clamp_min(1e-12)).round_().clamp_(range.lowest, range.highest);
      numbers.index_copy_(1, at, torch::where(of_block > 0, rounded, torch::zeros_like(rounded)));
    };
    place(s, d_.slice(0, first, last), scale_.slice(0, first, last), grid_->scale);
    if (grid_->has_min())
      place(m, dmin_.slice(0, first, last), min_.slice(0, first, last), grid_->min);
  }

  /// d, or dmin, of super-blocks begun now, from the scales of their blocks: the last of `value`.
  void place_supers(const Tensor& value, Tensor& units, const std::vector<std::int64_t>& supers,
                    std::int64_t n_values, format::Range range) const {
    const int largest = range.lowest < 0 ? std::min(-range.lowest, range.highest) : range.highest;
    const Tensor magnitude = range.lowest < 0 ? value.abs() : value;
    const auto n = static_cast<std::int64_t>(supers.size());
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t begin = n_values - (n - i) * grid_->blocks();
      const Tensor of_super = magnitude.slice(1, begin, begin + grid_->blocks());
      units.select(1, supers[static_cast<std::size_t>(i)])
          .copy_(round_to_half(of_super.amax(1).clamp_min(0) * (options_.headroom / largest)));
    }
  }

  /// Rows with the moment they share; an undefined index means all. Rows of a tied embedding differ
  /// in weight: those within a factor of √2 of a power of two share its factor.
  std::vector<std::pair<Tensor, Tensor>> row_groups() const {
    if (!c_.defined()) return {{Tensor(), h_}};
    const Tensor power = row_weight_.clamp(1e-12, 1e12).log2().round().to(torch::kCPU);
    std::map<int, std::vector<std::int64_t>> rows;
    for (std::int64_t r = 0; r < power.size(0); ++r)
      rows[static_cast<int>(power.data_ptr<float>()[r])].push_back(r);
    std::vector<std::pair<Tensor, Tensor>> out;
    for (const auto& [k, of_power] : rows)
      out.emplace_back(torch::tensor(of_power).to(weight_.device()), h_ + std::exp2(k) * c_);
    return out;
  }

  void fix_rows(const Tensor& rows, const Tensor& h) {
    const Tensor ordered =
        h.index_select(0, permutation_).index_select(1, permutation_).to(torch::kFloat64);
    const Tensor u = inverse_factor(damped(ordered, options_.damping));
    const std::int64_t n = rows.defined() ? rows.size(0) : weight_.size(0),
                       step = weight_.device().is_cpu() ? kRowsOnCpu : kRowsOnDevice;
    // factors of the blocks whose scales are chosen, for all bundles of rows
    std::map<std::int64_t, Tensor> factors;
    for (std::int64_t first = 0; first < n; first += step) {
      const std::int64_t last = std::min(first + step, n);
      fix_bundle(rows.defined() ? rows.slice(0, first, last)
                                : torch::arange(first, last, index_.options()),
                 u, factors);
    }
  }

  void fix_bundle(const Tensor& rows, const Tensor& u64, std::map<std::int64_t, Tensor>& factors) {
    const auto of_rows = [&](const Tensor& t) { return t.index_select(0, rows).t().contiguous(); };
    // Transposed: a column of the bundle is a run of memory.
    Tensor w = of_rows(weight_).index_select(0, permutation_);
    Tensor scale = of_rows(scale_), min = of_rows(min_);
    const Tensor d = of_rows(d_), dmin = of_rows(dmin_), u = u64.to(torch::kFloat32);
    Tensor code = torch::empty({code_.size(0), rows.size(0)}, w.options());
    const auto n = static_cast<std::int64_t>(columns_.size());
    for (std::int64_t first = 0, last = 0; first < n; first = last) {
      const std::int64_t block = block_of(order_[static_cast<std::size_t>(first)]);
      while (last < n && block_of(order_[static_cast<std::size_t>(last)]) == block) ++last;
      const Tensor offset = dmin[block / grid_->blocks()];
      if (options_.radius > 0 && !scaled_[static_cast<std::size_t>(block)]) {
        const Tensor own = positions_of(block, first, last);
        Tensor& factor = factors[block];
        if (!factor.defined()) factor = block_factor(u64, first, own);
        search(w.index_select(0, own), factor, d[block / grid_->blocks()], offset, scale[block],
               min[block]);
      }
      round_columns(w, u, first, last, d[block / grid_->blocks()] * scale[block],
                    offset * min[block], code);
    }
    weight_.index_put_({rows.unsqueeze(1), permutation_.unsqueeze(0)}, w.t());
    scale_.index_put_({rows}, scale.t());
    if (!grid_->has_scales()) d_.index_put_({rows}, d.t());
    min_.index_put_({rows}, min.t());
    code_.index_copy_(1, rows, code);
  }

  /// Where the columns of a block stand: those fixed now, then the others.
  Tensor positions_of(std::int64_t block, std::int64_t first, std::int64_t last) const {
    std::vector<std::int64_t> own(static_cast<std::size_t>(last - first));
    std::iota(own.begin(), own.end(), first);
    for (std::size_t i = static_cast<std::size_t>(last); i < order_.size(); ++i) {
      if (block_of(order_[i]) == block) own.push_back(static_cast<std::int64_t>(i));
    }
    return torch::tensor(own).to(index_.device());
  }

  /// The factor of a block given that all columns from `first` on answer for its errors.
  static Tensor block_factor(const Tensor& u, std::int64_t first, const Tensor& own) {
    const Tensor part = u.slice(0, first).index_select(1, own);
    return torch::linalg_cholesky(part.t().mm(part)).t().contiguous().to(torch::kFloat32);
  }

  /// Chooses scale and min of a block, or d where there are no scales: feedback inside it for every
  /// candidate, least Σ e².
  ///
  /// Shapes   w: [block, r]; factor: [block, block]; d, dmin, scale, min: [r], the chosen ones
  ///          replaced.
  void search(const Tensor& w, const Tensor& factor, Tensor d, const Tensor& dmin, Tensor scale,
              Tensor min) const {
    const std::int64_t n = w.size(0);
    // a scale of 0 says nothing of the sign
    const int least = grid_->has_signed_steps() ? grid_->scale.lowest : 1;
    const Tensor scales =
                     (scale.unsqueeze(1) * flip_ + scale_step_).clamp_(least, grid_->scale.highest),
                 mins = (min.unsqueeze(1) + min_step_).clamp_(0, grid_->min.highest);
    const Tensor steps =
        grid_->has_scales()
            ? d.unsqueeze(1) * scales
            : round_to_half(d.unsqueeze(1) * (flip_ + scale_step_ * numbers_of(*grid_).step_of_d));
    const Tensor step = steps.flatten(), offset = (dmin.unsqueeze(1) * mins).flatten();
    const Tensor inverse = torch::where(step != 0, step.reciprocal(), torch::zeros_like(step));
    const Tensor of_diagonal = factor.diagonal().reciprocal();
    Tensor errors = torch::empty({n, step.size(0)}, w.options()), loss = torch::zeros_like(step);
    for (std::int64_t i = 0; i < n; ++i) {
      Tensor x = w[i].unsqueeze(1).expand_as(scales).flatten();
      if (i > 0)
        x = torch::addmv(x, errors.slice(0, 0, i).t(), factor.select(1, i).slice(0, 0, i), 1, -1);
      Tensor error = errors[i];
      torch::add_out(error, x, offset);
      error.mul_(inverse);
      if (grid_->levels) {
        error.copy_(levels_.nearest(error));
      } else {
        error.round_().clamp_(grid_->code.lowest, grid_->code.highest);
      }
      error.mul_(step).sub_(offset).sub_(x).mul_(-of_diagonal[i]);
      loss.addcmul_(error, error);
    }
    const Tensor best = loss.view_as(scales).argmin(1, /*keepdim=*/true);
    if (grid_->has_scales()) {
      scale.copy_(scales.gather(1, best).squeeze(1));
    } else {
      d.copy_(steps.gather(1, best).squeeze(1));
    }
    min.copy_(mins.gather(1, best).squeeze(1));
  }

  /// Rounds columns [first, last) of one block and passes their errors on.
  void round_columns(Tensor& w, const Tensor& u, std::int64_t first, std::int64_t last,
                     const Tensor& step, const Tensor& offset, Tensor& code) const {
    const Tensor some = step != 0, divisor = torch::where(some, step, torch::ones_like(step));
    const Tensor none = levels_.nearest(torch::zeros_like(step));
    Tensor errors = torch::empty({last - first, w.size(1)}, w.options());
    for (std::int64_t i = first; i < last; ++i) {
      Tensor x = w[i];
      const Tensor rounded = levels_.nearest((x + offset).div_(divisor));
      const Tensor q = torch::where(some, rounded, none);
      const Tensor value = q * step - offset;
      Tensor error = errors[i - first];
      torch::sub_out(error, x, value);
      error.div_(u[i][i]);
      code[i].copy_(q);
      x.copy_(value);
      if (i + 1 < last) w.slice(0, i + 1, last).addr_(u[i].slice(0, i + 1, last), error, 1, -1);
    }
    if (last < w.size(0))
      w.slice(0, last).addmm_(u.slice(0, first, last).slice(1, last).t(), errors, 1, -1);
  }

  void store() {
    std::int64_t first = 0;
    for (PartialMatrix* matrix : matrices_) {
      const std::int64_t last = first + matrix->rows();
      const auto of_matrix = [&](const Tensor& t) { return t.slice(0, first, last); };
      matrix->weight.copy_(of_matrix(weight_));
      matrix->scale.copy_(of_matrix(scale_));
      matrix->min.copy_(of_matrix(min_));
      matrix->d.copy_(of_matrix(d_));
      matrix->dmin.copy_(of_matrix(dmin_));
      matrix->code.index_copy_(1, index_, levels_.codes(of_matrix(code_.t())));
      matrix->fixed.index_fill_(0, index_, 1);
      matrix->put_decoded();
      first = last;
    }
  }

  const std::vector<PartialMatrix*>& matrices_;
  const std::vector<std::int64_t>& columns_;
  FixOptions options_;
  const Levels levels_;
  const format::Grid* grid_ = nullptr;
  std::int64_t cols_ = 0;
  std::vector<bool> scaled_, placed_;  ///< blocks and super-blocks that were begun before
  std::vector<std::int64_t> order_;
  Tensor h_, c_, row_weight_;
  Tensor weight_, scale_, min_, d_, dmin_;  ///< of all matrices, one below the other; float32
  Tensor code_;                             ///< [columns, rows]
  Tensor index_, permutation_;
  Tensor flip_, scale_step_, min_step_;  ///< of the candidates
};

}  // namespace

std::vector<std::int64_t> column_order(const Tensor& h) {
  const Tensor sums = h.diagonal().view({-1, kRun}).sum(1, false, torch::kFloat64);
  const Tensor blocks = std::get<1>(
      torch::sort(sums.to(torch::kCPU), /*stable=*/true, /*dim=*/0, /*descending=*/true));
  std::vector<std::int64_t> columns;
  for (std::int64_t i = 0; i < blocks.size(0); ++i) {
    for (std::int64_t c = 0; c < kRun; ++c)
      columns.push_back(blocks.data_ptr<std::int64_t>()[i] * kRun + c);
  }
  return columns;
}

void fix_columns(const std::vector<PartialMatrix*>& matrices,
                 const std::vector<std::int64_t>& columns, const ColumnMoments& moments,
                 const FixOptions& options) {
  if (matrices.empty() || columns.empty()) return;
  torch::NoGradGuard no_grad;
  Fixer(matrices, columns, moments, options).run();
}

}  // namespace spectralquant::quantize
