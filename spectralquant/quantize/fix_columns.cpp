#include "spectralquant/quantize/fix_columns.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/codec/half.h"

namespace spectralquant::quantize {
namespace {

using torch::Tensor;

constexpr std::int64_t kColumns = 32, kBlocks = 8, kSuperColumns = kColumns * kBlocks;
constexpr double kLargestCode = 15, kLargestScale = 63;

/// Rows whose candidates are tried at once: on a CPU what stays in its caches.
constexpr std::int64_t kRowsOnCpu = 1024, kRowsOnDevice = 16384;

Tensor round_to_half(const Tensor& x) {
  return x.clamp(0, 65504).to(torch::kFloat16).to(torch::kFloat32);
}

Tensor damped(Tensor a, double share) {
  a = a.clone();
  a.diagonal().add_(share * a.diagonal().mean() + 1e-12);
  return a;
}

/// u upper with inverse(a) = uᵀ u; a: [n, n] float64. More damping until a can be factored.
Tensor inverse_factor_of(Tensor a) {
  for (double more = 1e-6;; more *= 10) {
    try {
      const Tensor b = torch::linalg_cholesky(a.flip({0, 1})).flip({0, 1});  // a = b bᵀ, b upper
      const Tensor u = torch::linalg_solve_triangular(b, torch::eye(a.size(0), a.options()),
                                                      /*upper=*/true, /*left=*/true,
                                                      /*unitriangular=*/false);
      if (u.isfinite().all().item<bool>()) return u;
    } catch (const c10::Error&) {
    }
    TORCH_CHECK(more < 1e6, "a moment matrix cannot be factored");
    a = damped(a, more);
  }
}

/// Scale and min ≥ 0 of each block by weighted least squares over trial steps, as llama.cpp's
/// make_qkx3_quants: x ≈ scale · code − min.
///
/// Shapes   x, weight: [.., 32] → two of [..].
std::pair<Tensor, Tensor> fit_blocks(const Tensor& x, const Tensor& weight) {
  constexpr int kTrials = 20;
  const auto sum = [](const Tensor& t) { return t.sum(-1, /*keepdim=*/true); };
  const Tensor lowest = x.amin(-1, true).clamp_max(0);
  Tensor range = x.amax(-1, true) - lowest;
  const Tensor some = range > 0;
  range = torch::where(some, range, torch::ones_like(range));
  Tensor scale = range / kLargestCode, offset = lowest.clone(), least;
  const Tensor weights = sum(weight), values = sum(weight * x);
  for (int trial = -1; trial <= kTrials; ++trial) {
    const double steps = trial < 0 ? kLargestCode : kLargestCode - 1 + 0.1 * trial;
    const Tensor code = ((x - lowest) * (steps / range)).round_().clamp_(0, kLargestCode);
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

/// Which of n groups of `width` columns have a fixed one.
std::vector<bool> begun(const Tensor& fixed, std::int64_t width) {
  const Tensor any = fixed.view({-1, width}).amax(1).to(torch::kCPU).contiguous();
  const auto* values = any.data_ptr<std::uint8_t>();
  return std::vector<bool>(values, values + any.numel());
}

class Fixer {
 public:
  Fixer(const std::vector<PartialMatrix*>& matrices, const std::vector<std::int64_t>& columns,
        const ColumnMoments& moments, const FixOptions& options)
      : matrices_(matrices), columns_(columns), options_(options) {
    const PartialMatrix& first = *matrices.front();
    const torch::Device device = first.weight.device();
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
    scaled_ = begun(first.fixed, kColumns);
    placed_ = begun(first.fixed, kSuperColumns);
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
  /// The columns to be fixed, then those that stay free.
  void order_columns(const Tensor& fixed) {
    const Tensor on_cpu = fixed.to(torch::kCPU).contiguous();
    std::vector<bool> taken(on_cpu.data_ptr<std::uint8_t>(),
                            on_cpu.data_ptr<std::uint8_t>() + cols_);
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
    std::vector<float> scale, min;
    for (int s = -options_.radius; s <= options_.radius; ++s) {
      for (int m = -options_.radius; m <= options_.radius; ++m) {
        scale.push_back(static_cast<float>(s));
        min.push_back(static_cast<float>(m));
      }
    }
    scale_step_ = torch::tensor(scale).to(weight_.device());
    min_step_ = torch::tensor(min).to(weight_.device());
  }

  /// d and dmin of super-blocks that are begun now, and first scales and mins of blocks that are.
  void choose_scales() {
    std::vector<std::int64_t> blocks, supers;
    for (std::int64_t b = 0; b < cols_ / kColumns; ++b) {
      const bool touched = std::any_of(columns_.begin(), columns_.end(),
                                       [b](std::int64_t c) { return c / kColumns == b; });
      const std::int64_t super = b / kBlocks;
      if (!touched) continue;
      if (!placed_[static_cast<std::size_t>(super)]) {
        if (supers.empty() || supers.back() != super) supers.push_back(super);
      } else if (!scaled_[static_cast<std::size_t>(b)]) {
        blocks.push_back(b);
      }
    }
    for (const std::int64_t super : supers) {
      for (std::int64_t b = super * kBlocks; b < (super + 1) * kBlocks; ++b) blocks.push_back(b);
    }
    const std::int64_t step = weight_.device().is_cpu() ? kRowsOnCpu : kRowsOnDevice;
    if (blocks.empty()) return;
    for (std::int64_t first = 0; first < weight_.size(0); first += step)
      choose_scales(first, std::min(first + step, weight_.size(0)), blocks, supers);
  }

  void choose_scales(std::int64_t first, std::int64_t last, const std::vector<std::int64_t>& blocks,
                     const std::vector<std::int64_t>& supers) {
    const Tensor at = torch::tensor(blocks).to(weight_.device());
    const Tensor w = weight_.slice(0, first, last);
    const Tensor x = w.view({w.size(0), -1, kColumns}).index_select(1, at);
    const Tensor spread = w.view({w.size(0), -1, kSuperColumns})
                              .square()
                              .mean(-1)
                              .mul(2)
                              .index_select(1, at.div(kBlocks, "floor"))
                              .unsqueeze(-1);
    const Tensor importance = h_.diagonal().view({1, -1, kColumns}).index_select(1, at);
    const auto [s, m] = fit_blocks(x, importance * (spread + x.square()).sqrt());
    Tensor d = d_.slice(0, first, last), dmin = dmin_.slice(0, first, last);
    const std::int64_t n = static_cast<std::int64_t>(supers.size()),
                       begin = static_cast<std::int64_t>(blocks.size()) - n * kBlocks;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto largest = [&](const Tensor& t) {
        const Tensor of_super = t.slice(1, begin + i * kBlocks, begin + (i + 1) * kBlocks);
        return round_to_half(of_super.amax(1).clamp_min(0) * (options_.headroom / kLargestScale));
      };
      d.select(1, supers[static_cast<std::size_t>(i)]).copy_(largest(s));
      dmin.select(1, supers[static_cast<std::size_t>(i)]).copy_(largest(m));
    }
    const auto six_bits = [&](const Tensor& value, const Tensor& unit) {
      const Tensor of_block = unit.index_select(1, at.div(kBlocks, "floor"));
      const Tensor rounded = (value / of_block.clamp_min(1e-12)).round_().clamp_(0, kLargestScale);
      return torch::where(of_block > 0, rounded, torch::zeros_like(rounded));
    };
    scale_.slice(0, first, last).index_copy_(1, at, six_bits(s, d));
    min_.slice(0, first, last).index_copy_(1, at, six_bits(m, dmin));
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
    const Tensor u = inverse_factor_of(damped(ordered, options_.damping));
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
      const std::int64_t block = order_[static_cast<std::size_t>(first)] / kColumns;
      while (last < n && order_[static_cast<std::size_t>(last)] / kColumns == block) ++last;
      const Tensor step = d[block / kBlocks], offset = dmin[block / kBlocks];
      if (options_.radius > 0 && !scaled_[static_cast<std::size_t>(block)]) {
        const Tensor own = positions_of(block, first, last);
        Tensor& factor = factors[block];
        if (!factor.defined()) factor = block_factor(u64, first, own);
        search(w.index_select(0, own), factor, step, offset, scale[block], min[block]);
      }
      round_columns(w, u, first, last, step * scale[block], offset * min[block], code);
    }
    weight_.index_put_({rows.unsqueeze(1), permutation_.unsqueeze(0)}, w.t());
    scale_.index_put_({rows}, scale.t());
    min_.index_put_({rows}, min.t());
    code_.index_copy_(1, rows, code);
  }

  /// Where the columns of a block stand: those fixed now, then the others.
  Tensor positions_of(std::int64_t block, std::int64_t first, std::int64_t last) const {
    std::vector<std::int64_t> own(static_cast<std::size_t>(last - first));
    std::iota(own.begin(), own.end(), first);
    for (std::size_t i = static_cast<std::size_t>(last); i < order_.size(); ++i) {
      if (order_[i] / kColumns == block) own.push_back(static_cast<std::int64_t>(i));
    }
    return torch::tensor(own).to(index_.device());
  }

  /// The factor of a block given that all columns from `first` on answer for its errors.
  static Tensor block_factor(const Tensor& u, std::int64_t first, const Tensor& own) {
    const Tensor part = u.slice(0, first).index_select(1, own);
    return torch::linalg_cholesky(part.t().mm(part)).t().contiguous().to(torch::kFloat32);
  }

  /// Chooses scale and min of a block: feedback inside it for every candidate, least Σ e².
  ///
  /// Shapes   w: [32, r]; factor: [32, 32]; d, dmin: [r]; scale, min: [r], replaced.
  void search(const Tensor& w, const Tensor& factor, const Tensor& d, const Tensor& dmin,
              Tensor scale, Tensor min) const {
    const std::int64_t n = w.size(0);
    const Tensor scales = (scale.unsqueeze(1) + scale_step_).clamp_(1, kLargestScale),
                 mins = (min.unsqueeze(1) + min_step_).clamp_(0, kLargestScale);
    const Tensor step = (d.unsqueeze(1) * scales).flatten(),
                 offset = (dmin.unsqueeze(1) * mins).flatten();
    const Tensor inverse =
        torch::where(step > 0, step.clamp_min(1e-12).reciprocal(), torch::zeros_like(step));
    const Tensor of_diagonal = factor.diagonal().reciprocal();
    Tensor errors = torch::empty({n, step.size(0)}, w.options()), loss = torch::zeros_like(step);
    for (std::int64_t i = 0; i < n; ++i) {
      Tensor x = w[i].unsqueeze(1).expand_as(scales).flatten();
      if (i > 0)
        x = torch::addmv(x, errors.slice(0, 0, i).t(), factor.select(1, i).slice(0, 0, i), 1, -1);
      Tensor error = errors[i];
      torch::add_out(error, x, offset);
      error.mul_(inverse).round_().clamp_(0, kLargestCode).mul_(step).sub_(offset);
      error.sub_(x).mul_(-of_diagonal[i]);
      loss.addcmul_(error, error);
    }
    const Tensor best = loss.view_as(scales).argmin(1, /*keepdim=*/true);
    scale.copy_(scales.gather(1, best).squeeze(1));
    min.copy_(mins.gather(1, best).squeeze(1));
  }

  /// Rounds columns [first, last) of one block and passes their errors on.
  static void round_columns(Tensor& w, const Tensor& u, std::int64_t first, std::int64_t last,
                            const Tensor& step, const Tensor& offset, Tensor& code) {
    const Tensor some = step > 0, divisor = step.clamp_min(1e-12);
    Tensor errors = torch::empty({last - first, w.size(1)}, w.options());
    for (std::int64_t i = first; i < last; ++i) {
      Tensor x = w[i];
      const Tensor rounded = (x + offset).div_(divisor).round_().clamp_(0, kLargestCode);
      const Tensor q = torch::where(some, rounded, torch::zeros_like(rounded));
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
      matrix->code.index_copy_(1, index_, of_matrix(code_.t()).to(torch::kUInt8));
      matrix->fixed.index_fill_(0, index_, 1);
      matrix->put_decoded();
      first = last;
    }
  }

  const std::vector<PartialMatrix*>& matrices_;
  const std::vector<std::int64_t>& columns_;
  FixOptions options_;
  std::int64_t cols_ = 0;
  std::vector<bool> scaled_, placed_;  ///< blocks and super-blocks that were begun before
  std::vector<std::int64_t> order_;
  Tensor h_, c_, row_weight_;
  Tensor weight_, scale_, min_, d_, dmin_;  ///< of all matrices, one below the other; float32
  Tensor code_;                             ///< [columns, rows]
  Tensor index_, permutation_;
  Tensor scale_step_, min_step_;
};

}  // namespace

PartialMatrix::PartialMatrix(Tensor w) : weight(std::move(w)) {
  const std::int64_t rows = weight.size(0), cols = weight.size(1);
  if (cols % kSuperColumns != 0) {
    throw bad_input("a matrix of " + std::to_string(rows) + " rows and " + std::to_string(cols) +
                        " columns cannot be Q4_K",
                    {}, "Q4_K needs a multiple of 256 columns");
  }
  const auto bytes = weight.options().dtype(torch::kUInt8);
  code = torch::zeros({rows, cols}, bytes);
  scale = torch::zeros({rows, cols / kColumns}, bytes);
  min = torch::zeros_like(scale);
  d = torch::zeros({rows, cols / kSuperColumns}, weight.options());
  dmin = torch::zeros_like(d);
  fixed = torch::zeros({cols}, bytes);
}

bool PartialMatrix::all_fixed() const { return fixed.all().item<bool>(); }

Tensor PartialMatrix::decode() const {
  const auto by_block = [&](const Tensor& super, const Tensor& block) {
    return (super.unsqueeze(-1) * block.view({rows(), -1, kBlocks})).view({rows(), -1, 1});
  };
  const Tensor step = by_block(d, scale), offset = by_block(dmin, min);
  return (code.view({rows(), -1, kColumns}) * step).sub_(offset).view({rows(), cols()});
}

void PartialMatrix::put_decoded() {
  torch::NoGradGuard no_grad;
  weight.copy_(torch::where(fixed > 0, decode(), weight));
}

format::GridMatrix PartialMatrix::matrix() const {
  TORCH_CHECK(all_fixed(), "columns of a matrix are not fixed yet");
  format::GridMatrix out(format::Q4_K::kGrid, rows(), cols());
  const auto take = [](const Tensor& from, std::vector<std::int8_t>& to) {
    const Tensor on_cpu = from.to(torch::kCPU).contiguous();
    std::copy_n(on_cpu.data_ptr<std::uint8_t>(), on_cpu.numel(), to.begin());
  };
  const auto take_half = [](const Tensor& from, std::vector<std::uint16_t>& to) {
    const Tensor on_cpu = from.to(torch::kCPU).contiguous();
    std::transform(on_cpu.data_ptr<float>(), on_cpu.data_ptr<float>() + on_cpu.numel(), to.begin(),
                   [](float x) { return gguf::float_to_half(x); });
  };
  take(code, out.codes);
  take(scale, out.scales);
  take(min, out.mins);
  take_half(d, out.d);
  take_half(dmin, out.dmin);
  return out;
}

std::vector<std::int64_t> column_order(const Tensor& h) {
  const Tensor sums = h.diagonal().view({-1, kColumns}).sum(1, false, torch::kFloat64);
  const Tensor blocks = std::get<1>(
      torch::sort(sums.to(torch::kCPU), /*stable=*/true, /*dim=*/0, /*descending=*/true));
  std::vector<std::int64_t> columns;
  for (std::int64_t i = 0; i < blocks.size(0); ++i) {
    for (std::int64_t c = 0; c < kColumns; ++c)
      columns.push_back(blocks.data_ptr<std::int64_t>()[i] * kColumns + c);
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
