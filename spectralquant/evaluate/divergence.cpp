#include "spectralquant/evaluate/divergence.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace spectralquant::evaluate {
namespace {

// Logits of one slice of the plain way: four float32 arrays of [positions, vocabulary] are alive at
// once, so 64 MiB here is 256 MiB.
constexpr std::int64_t kSliceBytes = 64 << 20;

// A tile of logits: 1 MiB a model stays in a core's cache, and both sides are long enough for the
// matrix product to run at full speed.
constexpr std::int64_t kTileRows = 256, kTileColumns = 1024;

// Stored tokens that are less likely do not count.  Source  llama.cpp, perplexity.cpp
constexpr float kLeastStored = -16;

constexpr int kLanes = 16;
using Lanes = float __attribute__((vector_size(4 * kLanes)));
using LanesLoad = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
using LanesInt = std::int32_t __attribute__((vector_size(4 * kLanes)));
using LevelsLoad = std::uint16_t __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

// One copy for each SIMD level, chosen at start. Elementwise arithmetic over a fixed number of
// lanes: all give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SQ_SIMD_LEVELS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SQ_SIMD_LEVELS
#endif
#define SQ_INLINE inline __attribute__((always_inline))

/// x ← e^x for x ≤ 0, to two units in the last place: 2^n times a polynomial in |r| ≤ ln 2 / 2, its
/// terms those of Taylor.
SQ_INLINE void exponential(Lanes& x) {
  // e^−87 is the last normal float; below it counts as that, 10^−38
  constexpr float kLowest = -87.f;
  constexpr float kRoundMagic = 12582912.f;  // 1.5·2²³: adding and subtracting it rounds to nearest
  const Lanes bounded = x < kLowest ? Lanes{} + kLowest : x;  // NaN stays
  const Lanes n = (bounded * 1.44269504f + kRoundMagic) - kRoundMagic;
  // ln 2 in two parts, the first short enough to be exact times n
  const Lanes r = (bounded - n * 0.693145752f) - n * 1.42860677e-6f;
  Lanes y = r * (1.f / 5040) + 1.f / 720;
  y = y * r + 1.f / 120;
  y = y * r + 1.f / 24;
  y = y * r + 1.f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.f;
  y = y * r + 1.f;
  const LanesInt exponent = __builtin_convertvector(n, LanesInt);
  x = y * (Lanes)((exponent + 127) << 23);  // the bits of 2^n
}

SQ_INLINE float total(const Lanes& lanes) {
  float sum[kLanes / 2];
  for (int i = 0; i < kLanes / 2; ++i) sum[i] = lanes[i] + lanes[i + kLanes / 2];
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

/// A model's logits at one position, as far as they have been read.
struct Side {
  float highest = -std::numeric_limits<float>::infinity();
  std::int64_t top = 0;  ///< where the highest is, the first one of equals
  double sum = 0;        ///< Σ e^(logit − highest)
  float target = std::numeric_limits<float>::quiet_NaN();

  double log_sum() const { return highest + std::log(sum); }
  double log_probability() const { return target - log_sum(); }
};

struct Position {
  Side p, q;
  double difference = 0;  ///< Σ e^(p − highest p) (p − q)
};

SQ_INLINE float highest_of(const float* logits, std::int64_t n) {
  Lanes high = Lanes{} - std::numeric_limits<float>::infinity();
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Lanes x = reinterpret_cast<const LanesLoad&>(logits[i]);
    high = x > high ? x : high;
  }
  float highest = high[0];
  for (int l = 1; l < kLanes; ++l) highest = std::max(highest, high[l]);
  for (; i < n; ++i) highest = std::max(highest, logits[i]);
  return highest;
}

/// Takes the highest logit of a tile into account. Returns the factor of sums that were relative to
/// the one before.
SQ_INLINE double raise(Side& side, const float* logits, std::int64_t n, std::int64_t first_column) {
  const float highest = highest_of(logits, n);
  if (!(highest > side.highest)) return 1;
  const double factor = std::exp(static_cast<double>(side.highest) - highest);
  side.highest = highest;
  side.top = first_column + (std::find(logits, logits + n, highest) - logits);
  side.sum *= factor;
  return factor;
}

/// Loads up to 16 logits; what is missing counts as infinitely low.
SQ_INLINE void load(Lanes& out, const float* from, std::int64_t n) {
  if (n >= kLanes) {
    out = reinterpret_cast<const LanesLoad&>(*from);
    return;
  }
  out = Lanes{} - std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < n; ++i) out[i] = from[i];
}

/// Reads n logits of one position of one model.
SQ_SIMD_LEVELS void read_one(Side& side, const float* logits, std::int64_t n,
                             std::int64_t first_column) {
  raise(side, logits, n, first_column);
  Lanes sum{};
  for (std::int64_t i = 0; i < n; i += kLanes) {
    Lanes x;
    load(x, logits + i, n - i);
    x -= side.highest;
    exponential(x);
    sum += x;
  }
  side.sum += total(sum);
}

/// Reads n logits of one position of both models.
SQ_SIMD_LEVELS void read_both(Position& at, const float* p, const float* q, std::int64_t n,
                              std::int64_t first_column) {
  at.difference *= raise(at.p, p, n, first_column);
  raise(at.q, q, n, first_column);
  Lanes sum_p{}, sum_q{}, difference{};
  for (std::int64_t i = 0; i < n; i += kLanes) {
    Lanes x, y;
    load(x, p + i, n - i);
    load(y, q + i, n - i);
    Lanes apart{};
    if (n - i >= kLanes)
      apart = x - y;
    else
      for (std::int64_t l = 0; l < n - i; ++l) apart[l] = x[l] - y[l];
    x -= at.p.highest;
    y -= at.q.highest;
    exponential(x);
    exponential(y);
    sum_p += x;
    sum_q += y;
    difference += x * apart;
  }
  at.p.sum += total(sum_p);
  at.q.sum += total(sum_q);
  at.difference += total(difference);
}

/// Logits of the tokens [first, first + n): [rows, n], float32.
torch::Tensor logits_of(const torch::Tensor& hidden, const torch::Tensor& head, std::int64_t first,
                        std::int64_t n) {
  return torch::linear(hidden, head.narrow(0, first, n).to(hidden.scalar_type()))
      .to(torch::kFloat32)
      .contiguous();
}

void read_tile(std::vector<Position>& rows, const torch::Tensor& p, const torch::Tensor* q,
               const std::int64_t* targets, std::int64_t first_column) {
  const std::int64_t n = p.size(1);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::int64_t target = targets[r] - first_column, begin = static_cast<std::int64_t>(r) * n;
    const bool here = target >= 0 && target < n;
    const float* p_row = p.data_ptr<float>() + begin;
    if (here) rows[r].p.target = p_row[target];
    if (!q) {
      read_one(rows[r].p, p_row, n, first_column);
      continue;
    }
    const float* q_row = q->data_ptr<float>() + begin;
    if (here) rows[r].q.target = q_row[target];
    read_both(rows[r], p_row, q_row, n, first_column);
  }
}

/// Σ p (log p − log q) over the tokens [first, first + n) of a stored row. logits: of these tokens;
/// log q = (logit − highest) − log_rest, in this order: the first difference is exact where it
/// matters.
SQ_SIMD_LEVELS double read_stored(const StoredRow& row, const float* logits, std::int64_t first,
                                  std::int64_t n, float highest, float log_rest) {
  const std::uint16_t* levels = row.levels.data() + first;
  Lanes difference{};
  for (std::int64_t i = 0; i < n; i += kLanes) {
    Lanes level{}, logit{};
    if (n - i >= kLanes) {
      level = __builtin_convertvector(reinterpret_cast<const LevelsLoad&>(levels[i]), Lanes);
      logit = reinterpret_cast<const LanesLoad&>(logits[i]);
    } else {
      for (std::int64_t l = 0; l < n - i; ++l) level[l] = levels[i + l], logit[l] = logits[i + l];
    }
    const Lanes log_p = row.lowest + row.step * level;
    Lanes term = log_p;
    exponential(term);
    term *= log_p - ((logit - highest) - log_rest);
    term = log_p > kLeastStored ? term : Lanes{};
    for (std::int64_t l = n - i; l < kLanes; ++l) term[l] = 0;
    difference += term;
  }
  return total(difference);
}

/// The first of the likeliest tokens.
std::int64_t top_of(const StoredRow& row) {
  return std::max_element(row.levels.begin(), row.levels.end()) - row.levels.begin();
}

/// Levels of rows [first, first + n) as log-probabilities, [n, V].
torch::Tensor log_probabilities(const std::vector<StoredRow>& rows, std::int64_t first,
                                std::int64_t n) {
  const auto vocab_size = static_cast<std::int64_t>(rows.at(0).levels.size());
  auto out = torch::empty({n, vocab_size}, torch::kFloat32);
  for (std::int64_t r = 0; r < n; ++r) {
    const auto& row = rows[static_cast<std::size_t>(first + r)];
    float* to = out.data_ptr<float>() + r * vocab_size;
    for (const auto level : row.levels) *to++ = row.lowest + row.step * static_cast<float>(level);
  }
  return out;
}

Divergence empty(std::int64_t n, const torch::TensorOptions& options) {
  const auto floats = options.dtype(torch::kFloat32);
  return {torch::zeros({n}, floats), torch::zeros({n}, floats), torch::zeros({n}, floats),
          torch::ones({n}, options.dtype(torch::kUInt8))};
}

}  // namespace

Divergence diverge_fused(const Predictions& p, const Predictions* q, const torch::Tensor& targets) {
  const std::int64_t n = targets.size(0), vocab_size = p.head.size(0);
  const auto wanted = targets.contiguous();
  Divergence out = empty(n, targets.options());
  for (std::int64_t first = 0; first < n; first += kTileRows) {
    const std::int64_t n_rows = std::min(kTileRows, n - first);
    std::vector<Position> rows(static_cast<std::size_t>(n_rows));
    const auto p_hidden = p.hidden.narrow(0, first, n_rows),
               q_hidden = q ? q->hidden.narrow(0, first, n_rows) : torch::Tensor();
    for (std::int64_t column = 0; column < vocab_size; column += kTileColumns) {
      const std::int64_t width = std::min(kTileColumns, vocab_size - column);
      const auto p_logits = logits_of(p_hidden, p.head, column, width);
      const auto q_logits = q ? logits_of(q_hidden, q->head, column, width) : torch::Tensor();
      read_tile(rows, p_logits, q ? &q_logits : nullptr, wanted.data_ptr<std::int64_t>() + first,
                column);
    }
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const Position& at = rows[static_cast<std::size_t>(r)];
      const Side& scored = q ? at.q : at.p;
      out.loss.data_ptr<float>()[first + r] = static_cast<float>(-scored.log_probability());
      if (!q) continue;
      const double kld = at.difference / at.p.sum - at.p.log_sum() + at.q.log_sum();
      out.kld.data_ptr<float>()[first + r] = static_cast<float>(kld);
      out.delta_p.data_ptr<float>()[first + r] =
          static_cast<float>(std::exp(at.q.log_probability()) - std::exp(at.p.log_probability()));
      out.same_top.data_ptr<std::uint8_t>()[first + r] = at.p.top == at.q.top;
    }
  }
  return out;
}

Divergence diverge_plainly(const Predictions& p, const Predictions* q,
                           const torch::Tensor& targets) {
  const std::int64_t n = targets.size(0), vocab_size = p.head.size(0);
  const std::int64_t slice = std::max<std::int64_t>(1, kSliceBytes / (4 * vocab_size));
  Divergence out = empty(n, targets.options());
  for (std::int64_t first = 0; first < n; first += slice) {
    const std::int64_t rows = std::min(slice, n - first);
    const auto wanted = targets.narrow(0, first, rows).unsqueeze(-1);
    const auto log_p =
        logits_of(p.hidden.narrow(0, first, rows), p.head, 0, vocab_size).log_softmax(-1);
    const auto true_p = log_p.gather(-1, wanted).squeeze(-1);
    if (!q) {
      out.loss.narrow(0, first, rows).copy_(-true_p);
      continue;
    }
    const auto log_q =
        logits_of(q->hidden.narrow(0, first, rows), q->head, 0, vocab_size).log_softmax(-1);
    const auto true_q = log_q.gather(-1, wanted).squeeze(-1);
    out.loss.narrow(0, first, rows).copy_(-true_q);
    out.kld.narrow(0, first, rows).copy_((log_p.exp() * (log_p - log_q)).sum(-1));
    out.delta_p.narrow(0, first, rows).copy_(true_q.exp() - true_p.exp());
    out.same_top.narrow(0, first, rows).copy_(log_p.argmax(-1).eq(log_q.argmax(-1)));
  }
  return out;
}

Divergence diverge_fused(const std::vector<StoredRow>& p, const Predictions& q,
                         const torch::Tensor& targets) {
  const std::int64_t n = targets.size(0), vocab_size = q.head.size(0);
  const std::int64_t slice = std::max<std::int64_t>(1, kSliceBytes / (4 * vocab_size));
  Divergence out = empty(n, targets.options());
  for (std::int64_t first = 0; first < n; first += slice) {
    const std::int64_t rows = std::min(slice, n - first);
    const auto logits = logits_of(q.hidden.narrow(0, first, rows), q.head, 0, vocab_size);
    for (std::int64_t r = first; r < first + rows; ++r) {
      const StoredRow& row = p[static_cast<std::size_t>(r)];
      const float* at = logits.data_ptr<float>() + (r - first) * vocab_size;
      const std::int64_t target = targets.data_ptr<std::int64_t>()[r];
      Side side;
      side.target = at[target];
      for (std::int64_t column = 0; column < vocab_size; column += kTileColumns)
        read_one(side, at + column, std::min(kTileColumns, vocab_size - column), column);
      const auto log_rest = static_cast<float>(std::log(side.sum));
      double kld = 0;
      for (std::int64_t column = 0; column < vocab_size; column += kTileColumns)
        kld += read_stored(row, at + column, column, std::min(kTileColumns, vocab_size - column),
                           side.highest, log_rest);
      const double loss = -side.log_probability(), reference_loss = stored_loss(row, target);
      out.loss.data_ptr<float>()[r] = static_cast<float>(loss);
      out.kld.data_ptr<float>()[r] = static_cast<float>(kld);
      out.delta_p.data_ptr<float>()[r] =
          static_cast<float>(std::exp(-loss) - std::exp(-reference_loss));
      out.same_top.data_ptr<std::uint8_t>()[r] = side.top == top_of(row);
    }
  }
  return out;
}

Divergence diverge_plainly(const std::vector<StoredRow>& p, const Predictions& q,
                           const torch::Tensor& targets) {
  const std::int64_t n = targets.size(0), vocab_size = q.head.size(0);
  const std::int64_t slice = std::max<std::int64_t>(1, kSliceBytes / (4 * vocab_size));
  Divergence out = empty(n, targets.options());
  for (std::int64_t first = 0; first < n; first += slice) {
    const std::int64_t rows = std::min(slice, n - first);
    const auto wanted = targets.narrow(0, first, rows).unsqueeze(-1);
    const auto log_p = log_probabilities(p, first, rows).to(targets.device());
    const auto log_q =
        logits_of(q.hidden.narrow(0, first, rows), q.head, 0, vocab_size).log_softmax(-1);
    const auto true_p = log_p.gather(-1, wanted).squeeze(-1),
               true_q = log_q.gather(-1, wanted).squeeze(-1);
    const auto terms = log_p.exp() * (log_p - log_q);
    out.loss.narrow(0, first, rows).copy_(-true_q);
    out.kld.narrow(0, first, rows).copy_(terms.masked_fill(log_p <= kLeastStored, 0).sum(-1));
    out.delta_p.narrow(0, first, rows).copy_(true_q.exp() - true_p.exp());
    out.same_top.narrow(0, first, rows).copy_(log_p.argmax(-1).eq(log_q.argmax(-1)));
  }
  return out;
}

Divergence diverge(const std::vector<StoredRow>& p, const Predictions& q,
                   const torch::Tensor& targets) {
  return targets.is_cpu() ? diverge_fused(p, q, targets) : diverge_plainly(p, q, targets);
}

Divergence diverge(const Predictions& p, const Predictions* q, const torch::Tensor& targets) {
  return targets.is_cpu() ? diverge_fused(p, q, targets) : diverge_plainly(p, q, targets);
}

}  // namespace spectralquant::evaluate
