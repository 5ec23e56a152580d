// The kernels of row_solver.h for one SIMD level, templates over the shape F. Included once per
// level by row_solver.cpp, inside a namespace of its own, with SQ_LANES floats to a vector. Only
// elementwise vector arithmetic: the bits do not depend on SQ_LANES.

using Vec = float __attribute__((vector_size(4 * SQ_LANES)));
using VecLoad = float __attribute__((vector_size(4 * SQ_LANES), aligned(4), may_alias));
using VecHalfLoad = float __attribute__((vector_size(2 * SQ_LANES), aligned(4), may_alias));
using VecD = double __attribute__((vector_size(4 * SQ_LANES)));
using VecDLoad = double __attribute__((vector_size(4 * SQ_LANES), aligned(8), may_alias));

constexpr int kLanes = SQ_LANES;
constexpr int kGroup = kCandidates / kLanes;  // vectors that hold all candidates
// 1.5·2²³: adding and subtracting it rounds to nearest even
constexpr float kRoundMagic = 12582912.f;

SQ_INLINE const VecLoad& at(const float* p) { return *reinterpret_cast<const VecLoad*>(p); }
SQ_INLINE VecLoad& at(float* p) { return *reinterpret_cast<VecLoad*>(p); }

/// Rounding to the codes of a format, or to its levels; T: float or Vec. NaN becomes the lowest.
template <class F, class T>
struct Rounding {
  T lowest, highest;
  const Numbers& numbers;

  SQ_INLINE explicit Rounding(const Numbers& n)
      : lowest(T{} + static_cast<float>(n.code.lowest)),
        highest(T{} + static_cast<float>(n.code.highest)),
        numbers(n) {}
  SQ_INLINE T operator()(T x) const {
    if constexpr (F::kHasLevels) {
      T level = T{} + numbers.level[0];
      for (int k = 1; k < kLevels; ++k)
        level = x > T{} + numbers.begin[k] ? T{} + numbers.level[k] : level;
      return level;
    } else {
      x = x > lowest ? x : lowest;
      x = x < highest ? x : highest;
      return (x + kRoundMagic) - kRoundMagic;
    }
  }
};

/// Cells that changed in a row: columns and changes of value, in ascending order.
struct Changes {
  int n = 0;
  std::int32_t column[gguf::kSuperBlock];
  float delta[gguf::kSuperBlock];

  SQ_INLINE void add(std::int64_t c, float change) {
    if (change == 0.f) return;
    column[n] = static_cast<std::int32_t>(c);
    delta[n++] = change;
  }
};

/// m[first..first+Width) += Σ_k factor · delta_k · matrix[column_k][first..], inside one tile of
/// the matrix.
template <int Width>
SQ_INLINE void accumulate_tile(float* m, const float* matrix, std::int64_t cols, std::int64_t first,
                               const Changes& changes, float factor) {
  const float* tile = matrix + tiled_index(0, first, cols);
  constexpr int kVectors = Width / kLanes;
  Vec sum[kVectors];
  for (int v = 0; v < kVectors; ++v) sum[v] = at(m + first + v * kLanes);
  for (int k = 0; k < changes.n; ++k) {
    const float* row = tile + changes.column[k] * kTile;
    const float delta = factor * changes.delta[k];
    for (int v = 0; v < kVectors; ++v) sum[v] += delta * at(row + v * kLanes);
  }
  for (int v = 0; v < kVectors; ++v) at(m + first + v * kLanes) = sum[v];
}

/// One row, columns [first, last): multiples of a block. m begins at column 0 of the matrix.
template <class F>
SQ_INLINE void accumulate(float* m, const float* matrix, std::int64_t cols, std::int64_t first,
                          std::int64_t last, const Changes& changes, float factor) {
  if (changes.n == 0 || first >= last) return;
  for (; first % kTile && first < last; first += F::kBlock)
    accumulate_tile<F::kBlock>(m, matrix, cols, first, changes, factor);
  for (; first + kTile <= last; first += kTile)
    accumulate_tile<kTile>(m, matrix, cols, first, changes, factor);
  for (; first < last; first += F::kBlock)
    accumulate_tile<F::kBlock>(m, matrix, cols, first, changes, factor);
}

/// Candidates of (scale, min) around (scale0, min0), or of d where there are no scales: lane 0 is
/// the present one itself; lanes that leave the range, or would have no step, repeat it.
template <class F>
struct Candidates {
  // d · scale, dmin · min, 1 / step (0 where there is no step to divide by)
  Vec step[kGroup], offset[kGroup], inverse[kGroup];
  alignas(64) float d[kCandidates], scale[kCandidates], min[kCandidates];

  /// offsets: kCandidates of them.
  SQ_INLINE void fill(float d0, float dmin, int scale0, int min0, const Numbers& n,
                      const Offsets& offsets) {
    if constexpr (F::kHasScales) {
      fill_scales(d0, dmin, scale0, min0, n, offsets);
    } else {
      for (int k = 0; k < kCandidates; ++k) {
        const float trial = round_to_half(d0 * (offsets.flip[k] + offsets.up[k] * n.step_of_d));
        d[k] = is_usable<F>(trial) ? trial : d0;
        scale[k] = 1.f;
        min[k] = 0.f;
      }
      for (int g = 0; g < kGroup; ++g) {
        step[g] = at(d + g * kLanes);
        offset[g] = Vec{};
      }
    }
    for (int g = 0; g < kGroup; ++g) {
      const Vec zero = {};
      auto usable = step[g] > 0.f;
      if constexpr (F::kHasSignedSteps) usable |= step[g] < 0.f;
      inverse[g] = usable ? 1.f / (usable ? step[g] : zero + 1.f) : zero;
    }
  }

  SQ_INLINE void fill_scales(float d0, float dmin, int scale0, int min0, const Numbers& n,
                             const Offsets& offsets) {
    const float highest = static_cast<float>(n.scale.highest) + .5f,
                lowest = static_cast<float>(n.scale.lowest) - .5f,
                highest_min = static_cast<float>(n.min.highest) + .5f;
    const Vec zero = {}, s0 = zero + static_cast<float>(scale0),
              m0 = zero + static_cast<float>(min0);
    for (int g = 0; g < kGroup; ++g) {
      Vec s = s0;
      if constexpr (F::kHasSignedSteps) s = s0 * at(offsets.flip + g * kLanes);
      s += at(offsets.up + g * kLanes);
      auto inside = (s > 0.5f) & (s < highest);
      if constexpr (F::kHasSignedSteps) inside |= (s < -0.5f) & (s > lowest);
      Vec m = m0;
      if constexpr (F::kHasMin) {
        m = m0 + at(offsets.min_up + g * kLanes);
        inside &= (m > -0.5f) & (m < highest_min);
        m = inside ? m : m0;
      }
      s = inside ? s : s0;
      at(d + g * kLanes) = zero + d0;
      at(scale + g * kLanes) = s;
      at(min + g * kLanes) = m;
      step[g] = s * d0;
      offset[g] = m * dmin;
    }
  }
};

template <class F>
struct Trace {
  alignas(64) float code[F::kBlock * kCandidates];
  alignas(64) float error[F::kBlock * kCandidates];
  alignas(64) float loss[kCandidates];
};

/// Error feedback inside one block for all candidates at once: each lane rounds column by column
/// and pushes its error on. Returns the first lane with the least loss below `bound`, or -1.
template <class F>
SQ_INLINE int feedback(const float* target, const float* u, const float* u_inverse,
                       const Candidates<F>& candidates, float bound, const Numbers& n,
                       Trace<F>& trace) {
  constexpr int kBlock = F::kBlock;
  const Rounding<F, Vec> nearest(n);
  alignas(64) float tau[kBlock * kCandidates];
  Vec step[kGroup], offset[kGroup], inverse[kGroup], loss[kGroup];
  for (int g = 0; g < kGroup; ++g) {
    step[g] = candidates.step[g];
    offset[g] = candidates.offset[g];
    inverse[g] = candidates.inverse[g];
    loss[g] = Vec{};
  }
  for (int i = 0; i < kBlock; ++i) {
    const Vec t = Vec{} + target[i];
    for (int g = 0; g < kGroup; ++g) at(tau + i * kCandidates + g * kLanes) = t;
  }
  constexpr int kRank = 4;  // columns whose errors are pushed on together
  for (int first = 0; first < kBlock; first += kRank) {
    Vec error[kRank][kGroup];
    for (int k = 0; k < kRank; ++k) {
      const int i = first + k;
      for (int g = 0; g < kGroup; ++g) {
        Vec x = at(tau + i * kCandidates + g * kLanes);
        for (int p = 0; p < k; ++p) x -= error[p][g] * u[(first + p) * kBlock + i];
        Vec q = x, value;
        if constexpr (F::kHasMin) q = q + offset[g];
        q = q * inverse[g];
        q = nearest(q);
        value = q * step[g];
        if constexpr (F::kHasMin) value = value - offset[g];
        const Vec e = (x - value) * u_inverse[i];
        loss[g] += e * e;
        error[k][g] = e;
        at(trace.code + i * kCandidates + g * kLanes) = q;
        at(trace.error + i * kCandidates + g * kLanes) = e;
      }
    }
    for (int j = first + kRank; j < kBlock; ++j) {
      for (int g = 0; g < kGroup; ++g) {
        Vec x = at(tau + j * kCandidates + g * kLanes);
        for (int k = 0; k < kRank; ++k) x -= error[k][g] * u[(first + k) * kBlock + j];
        at(tau + j * kCandidates + g * kLanes) = x;
      }
    }
    if (first == kBlock / 2 - kRank) {  // half-way: losses only grow
      for (int g = 0; g < kGroup; ++g) at(trace.loss + g * kLanes) = loss[g];
      bool hope = false;
      for (int lane = 0; lane < kCandidates; ++lane) hope |= trace.loss[lane] < bound;
      if (!hope) return -1;
    }
  }
  for (int g = 0; g < kGroup; ++g) at(trace.loss + g * kLanes) = loss[g];
  int best = -1;
  for (int lane = 0; lane < kCandidates; ++lane) {
    if (trace.loss[lane] < bound) bound = trace.loss[lane], best = lane;
  }
  return best;
}

/// One pass of coordinate descent over the codes of a block; m is the gradient in the block.
/// Returns the change of the objective.
template <class F>
SQ_INLINE float descend(const BlockFactors<F>& f, float step, const Numbers& n, float* code,
                        float* m) {
  if (!is_usable<F>(step)) return 0.f;
  const Rounding<F, float> nearest(n);
  const float inverse = 1.f / step;
  float gain = 0.f;
  for (int i = 0; i < F::kBlock; ++i) {
    const float q = nearest(code[i] - m[i] * f.h_inverse[i] * inverse);
    if (q == code[i]) continue;
    const float delta = (q - code[i]) * step;
    const float change = 2.f * m[i] * delta + f.h[i * F::kBlock + i] * delta * delta;
    if (!(change < 0.f)) continue;
    gain += change;
    code[i] = q;
    for (int v = 0; v < F::kBlock / kLanes; ++v)
      at(m + v * kLanes) += delta * at(f.h + i * F::kBlock + v * kLanes);
  }
  return gain;
}

/// A block of a row in work: codes, values and gradient, apart from the row until they are
/// accepted.
template <class F>
struct BlockState {
  alignas(64) float code[F::kBlock];
  alignas(64) float value[F::kBlock];
  alignas(64) float m[F::kBlock];
  float d, dmin;
  int scale, min;
};

/// Searches (scale, min) of a block by feedback inside it, codes re-derived for each candidate.
/// With `force` the best candidate is taken even when it is worse. Returns the change of the
/// objective; 0 when the block stays.
template <class F>
SQ_INLINE float search_block(BlockState<F>& block, const BlockFactors<F>& f, float d, float dmin,
                             int scale0, int min0, bool force, int polish, const Numbers& n,
                             Trace<F>& trace) {
  constexpr int kBlock = F::kBlock, kStep = F::kBlock / kLanes;
  // The best real values of the block lie at value − h⁻¹ m = value − uᵀ (u m), |u m|² below the
  // present objective.
  alignas(64) float um[kBlock], target[kBlock];
  Vec sum[kStep] = {};
  for (int j = 0; j < kBlock; ++j) {
    for (int v = 0; v < kStep; ++v)
      sum[v] += block.m[j] * at(f.u_transposed + j * kBlock + v * kLanes);
  }
  for (int v = 0; v < kStep; ++v) at(um + v * kLanes) = sum[v];
  float part[4] = {};
  for (int i = 0; i < kBlock; i += 4) {
    for (int k = 0; k < 4; ++k) part[k] += um[i + k] * um[i + k];
  }
  const float loss = (part[0] + part[1]) + (part[2] + part[3]);
  for (int v = 0; v < kStep; ++v) sum[v] = at(block.value + v * kLanes);
  for (int i = 0; i < kBlock; ++i) {
    for (int v = 0; v < kStep; ++v) sum[v] -= um[i] * at(f.u + i * kBlock + v * kLanes);
  }
  for (int v = 0; v < kStep; ++v) at(target + v * kLanes) = sum[v];
  Candidates<F> candidates;
  candidates.fill(d, dmin, scale0, min0, n, kSweepOffsets<F>);
  int best = feedback<F>(target, f.u, f.u_inverse, candidates, force ? 3e38f : loss, n, trace);
  if (best < 0) {
    if (!force) return 0.f;
    best = 0;  // every loss overflowed: keep the centre
  }
  float gain = trace.loss[best] - loss;
  alignas(64) float code[kBlock], value[kBlock], m[kBlock];
  const float step = candidates.d[best] * candidates.scale[best],
              offset = offset_of<F>(dmin, candidates.min[best]);
  for (int i = 0; i < kBlock; ++i) code[i] = trace.code[i * kCandidates + best];
  for (int v = 0; v < kStep; ++v) sum[v] = at(block.m + v * kLanes);
  for (int i = 0; i < kBlock; ++i) {
    const float delta = (code[i] * step - offset) - block.value[i];
    for (int v = 0; v < kStep; ++v) sum[v] += delta * at(f.h + i * kBlock + v * kLanes);
  }
  for (int v = 0; v < kStep; ++v) at(m + v * kLanes) = sum[v];
  for (int k = 0; k < polish; ++k) {
    const float change = descend<F>(f, step, n, code, m);
    gain += change;
    if (change == 0.f) break;
  }
  if (!force && !(gain < -kNoise * loss)) return 0.f;  // nothing but float noise
  for (int i = 0; i < kBlock; ++i) value[i] = code[i] * step - offset;
  for (int v = 0; v < kStep; ++v) {
    at(block.code + v * kLanes) = at(code + v * kLanes);
    at(block.value + v * kLanes) = at(value + v * kLanes);
    at(block.m + v * kLanes) = at(m + v * kLanes);
  }
  block.d = candidates.d[best];
  block.dmin = dmin;
  block.scale = static_cast<int>(candidates.scale[best]);
  block.min = static_cast<int>(candidates.min[best]);
  return gain;
}

template <class F>
SQ_INLINE void load_block(BlockState<F>& block, const RowWork<F>& row, const float* m,
                          std::int64_t b) {
  constexpr int kBlock = F::kBlock, kStep = F::kBlock / kLanes;
  for (int v = 0; v < kStep; ++v) {
    at(block.code + v * kLanes) = at(row.code + b * kBlock + v * kLanes);
    at(block.value + v * kLanes) = at(row.value + b * kBlock + v * kLanes);
    at(block.m + v * kLanes) = at(m + v * kLanes);
  }
  block.d = row.d[b / F::kBlocks];
  block.dmin = row.dmin[b / F::kBlocks];
  block.scale = row.scale[b];
  block.min = row.min[b];
}

/// Codes by coordinate descent, then (scale, min); appends what changed.
template <class F>
inline float improve_block(RowWork<F>& row, std::int64_t b, const Numbers& n,
                           const RowSettings& settings, Trace<F>& trace, Changes& changes) {
  constexpr int kBlock = F::kBlock, kStep = F::kBlock / kLanes;
  BlockState<F> block;
  load_block<F>(block, row, row.m + b * kBlock, b);
  const BlockFactors<F>& f = row.blocks[b];
  const float step = block.d * static_cast<float>(block.scale),
              offset = offset_of<F>(block.dmin, static_cast<float>(block.min));
  float gain = descend<F>(f, step, n, block.code, block.m);
  if (gain != 0.f) {
    for (int i = 0; i < kBlock; ++i) block.value[i] = block.code[i] * step - offset;
  }
  if (settings.scale_search)
    gain += search_block<F>(block, f, block.d, block.dmin, block.scale, block.min, false,
                            kBlockPolish, n, trace);
  if (gain == 0.f) return 0.f;
  for (int i = 0; i < kBlock; ++i)
    changes.add(b * kBlock + i, block.value[i] - row.value[b * kBlock + i]);
  for (int v = 0; v < kStep; ++v) {
    at(row.code + b * kBlock + v * kLanes) = at(block.code + v * kLanes);
    at(row.value + b * kBlock + v * kLanes) = at(block.value + v * kLanes);
  }
  row.scale[b] = static_cast<std::int8_t>(block.scale);
  row.min[b] = static_cast<std::int8_t>(block.min);
  if constexpr (!F::kHasScales) row.d[b] = block.d;
  return gain;
}

/// Tries other d, then other dmin, for super-block `s`, its sub-scales and codes searched again for
/// each. Only the gradient inside the super-block is followed until a trial is accepted. Returns
/// the change of the objective.
template <class F>
inline float improve_super(RowWork<F>& row, std::int64_t s, std::int64_t cols, const float* h,
                           const float* c, const Numbers& n, Trace<F>& trace, Changes& changes) {
  constexpr int kBlock = F::kBlock, kSuper = F::kSuper, kBlocks = F::kBlocks;
  alignas(64) float m_now[kSuper], m[kSuper], first_value[kSuper];
  BlockState<F> trial[kBlocks];
  const std::int64_t origin = s * kSuper;
  for (int i = 0; i < kSuper; ++i)
    m_now[i] = row.m[origin + i], first_value[i] = row.value[origin + i];
  float total = 0.f;
  for (int k = 0; k < (F::kHasMin ? 2 : 1) * kRatios; ++k) {
    const float d0 = row.d[s], dmin0 = row.dmin[s];
    const float d = k < kRatios ? round_to_half(d0 * kRatio[k]) : d0;
    const float dmin = k < kRatios ? dmin0 : round_to_half(dmin0 * kRatio[k - kRatios]);
    if (!is_usable<F>(d) || (d == d0 && dmin == dmin0)) continue;
    for (int i = 0; i < kSuper; ++i) m[i] = m_now[i];
    const float d_ratio = d0 / d, dmin_ratio = dmin > 0.f ? dmin0 / dmin : 0.f;
    float gain = 0.f;
    Changes step;
    for (int b = 0; b < kBlocks; ++b) {
      const std::int64_t global = s * kBlocks + b;
      load_block<F>(trial[b], row, m + b * kBlock, global);
      const int scale0 = nearest_in(n.scale, row.scale[global] * d_ratio),
                min0 = nearest_in(n.min, row.min[global] * dmin_ratio);
      gain += search_block<F>(trial[b], row.blocks[global], d, dmin, scale0, min0, true,
                              kSuperPolish, n, trace);
      step.n = 0;
      for (int i = 0; i < kBlock; ++i)
        step.add(origin + b * kBlock + i, trial[b].value[i] - row.value[global * kBlock + i]);
      for (int i = 0; i < kBlock; ++i) m[b * kBlock + i] = trial[b].m[i];
      if (h)
        accumulate<F>(m - origin, h, cols, origin + (b + 1) * kBlock, origin + kSuper, step, 1.f);
      if (c)
        accumulate<F>(m - origin, c, cols, origin + (b + 1) * kBlock, origin + kSuper, step,
                      row.weight);
    }
    if (!(gain < 0.f)) continue;
    // Earlier blocks of the super-block feel the later ones too: the gradient there is brought up
    // to date.
    for (int b = 1; b < kBlocks; ++b) {
      step.n = 0;
      for (int i = 0; i < kBlock; ++i)
        step.add(origin + b * kBlock + i, trial[b].value[i] - row.value[origin + b * kBlock + i]);
      if (h) accumulate<F>(m - origin, h, cols, origin, origin + b * kBlock, step, 1.f);
      if (c) accumulate<F>(m - origin, c, cols, origin, origin + b * kBlock, step, row.weight);
    }
    for (int i = 0; i < kSuper; ++i) m_now[i] = m[i];
    for (int b = 0; b < kBlocks; ++b) {
      const std::int64_t global = s * kBlocks + b;
      row.scale[global] = static_cast<std::int8_t>(trial[b].scale);
      row.min[global] = static_cast<std::int8_t>(trial[b].min);
      for (int i = 0; i < kBlock; ++i) {
        row.code[global * kBlock + i] = trial[b].code[i];
        row.value[global * kBlock + i] = trial[b].value[i];
      }
    }
    row.d[s] = d;
    row.dmin[s] = dmin;
    total += gain;
  }
  if (total != 0.f) {
    for (int i = 0; i < kSuper; ++i)
      changes.add(origin + i, row.value[origin + i] - first_value[i]);
  }
  return total;
}

/// Brings the gradients of all rows up to date. A tile of the matrix is read once for all rows.
template <class F>
inline void spread(RowWork<F>* rows, int n_rows, std::int64_t cols, const float* h, const float* c,
                   std::int64_t first, const Changes* changes) {
  for (std::int64_t tile = first; tile < cols; tile += kTile) {
    if (h) {
      for (int r = 0; r < n_rows; ++r) {
        if (changes[r].n) accumulate_tile<kTile>(rows[r].m, h, cols, tile, changes[r], 1.f);
      }
    }
    if (c) {
      for (int r = 0; r < n_rows; ++r) {
        if (changes[r].n)
          accumulate_tile<kTile>(rows[r].m, c, cols, tile, changes[r], rows[r].weight);
      }
    }
  }
}

/// With a diagonal h only the changed columns themselves.
template <class F>
inline void spread_diagonal(RowWork<F>& row, const Changes& changes) {
  constexpr int kBlock = F::kBlock;
  for (int k = 0; k < changes.n; ++k) {
    const std::int64_t column = changes.column[k], i = column % kBlock;
    row.m[column] += changes.delta[k] * row.blocks[column / kBlock].h[i * kBlock + i];
  }
}

template <class F>
void improve(RowWork<F>* rows, int n_rows, std::int64_t cols, const float* h, const float* c,
             const Numbers& numbers, const RowSettings& settings) {
  Trace<F> trace;
  Changes changes[kBundle];
  bool idle[kBundle] = {};
  auto apply = [&] {
    if (h) {
      spread<F>(rows, n_rows, cols, h, c, 0, changes);
    } else {
      for (int r = 0; r < n_rows; ++r) spread_diagonal<F>(rows[r], changes[r]);
    }
  };
  for (int sweep = 0; sweep < settings.sweeps; ++sweep) {
    bool changed[kBundle] = {};
    for (std::int64_t b = 0; b < cols / F::kBlock; ++b) {
      for (int r = 0; r < n_rows; ++r) {
        changes[r].n = 0;
        if (idle[r]) continue;
        const float gain = improve_block<F>(rows[r], b, numbers, settings, trace, changes[r]);
        rows[r].gain += gain;
        changed[r] |= gain != 0.f;
      }
      apply();
    }
    for (int r = 0; r < n_rows; ++r) idle[r] = !changed[r];
  }
  if constexpr (F::kHasScales) {
    if (!settings.super_scale_search) return;
    for (std::int64_t s = 0; s < cols / F::kSuper; ++s) {
      for (int r = 0; r < n_rows; ++r) {
        changes[r].n = 0;
        rows[r].gain += improve_super<F>(rows[r], s, cols, h, c, numbers, trace, changes[r]);
      }
      apply();
    }
  }
}

template <class F>
void start(RowWork<F>* rows, int n_rows, std::int64_t cols, const float* u, const Numbers& numbers,
           const RowSettings& settings) {
  constexpr int kBlock = F::kBlock;
  Trace<F> trace;
  Changes changes[kBundle];
  Offsets offsets[kMaxOffsets];
  const int n_offsets = start_offsets<F>(settings.live_scale_radius, offsets);
  for (std::int64_t b = 0; b < cols / F::kBlock; ++b) {
    for (int r = 0; r < n_rows; ++r) {
      RowWork<F>& row = rows[r];
      const BlockFactors<F>& f = row.blocks[b];
      const float d = row.d[b / F::kBlocks], dmin = row.dmin[b / F::kBlocks];
      const int scale0 = row.scale[b], min0 = row.min[b];
      float best_loss = 3e38f;
      alignas(64) float error[kBlock] = {};
      Candidates<F> candidates;
      for (int k = 0; k < n_offsets; ++k) {
        candidates.fill(d, dmin, scale0, min0, numbers, offsets[k]);
        const int best = feedback<F>(row.m + b * kBlock, f.u, f.u_inverse, candidates, best_loss,
                                     numbers, trace);
        if (best < 0) continue;
        best_loss = trace.loss[best];
        row.scale[b] = static_cast<std::int8_t>(candidates.scale[best]);
        row.min[b] = static_cast<std::int8_t>(candidates.min[best]);
        if constexpr (!F::kHasScales) row.d[b] = candidates.d[best];
        for (int i = 0; i < kBlock; ++i) {
          row.code[b * kBlock + i] = trace.code[i * kCandidates + best];
          error[i] = trace.error[i * kCandidates + best];
        }
      }
      changes[r].n = 0;
      for (int i = 0; i < kBlock; ++i) changes[r].add(b * kBlock + i, -error[i]);
    }
    // m is the target still to be rounded: the errors of this block are pushed on to the columns
    // behind it.
    if (u) spread<F>(rows, n_rows, cols, u, nullptr, (b + 1) * kBlock / kTile * kTile, changes);
  }
}

/// R rows of a times x, columns [first, first + 16), depth [k0, k1): out accumulates.
template <int R>
SQ_INLINE void multiply_tile(const float* a, std::int64_t lda, std::int64_t k0, std::int64_t k1,
                             const float* x, std::int64_t ldx, float* out, std::int64_t ldo) {
  Vec sum[R][kGroup];
  for (int r = 0; r < R; ++r) {
    for (int g = 0; g < kGroup; ++g) sum[r][g] = at(out + r * ldo + g * kLanes);
  }
  for (std::int64_t k = k0; k < k1; ++k) {
    Vec row[kGroup];
    for (int g = 0; g < kGroup; ++g) row[g] = at(x + k * ldx + g * kLanes);
    for (int r = 0; r < R; ++r) {
      for (int g = 0; g < kGroup; ++g) sum[r][g] += a[r * lda + k] * row[g];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int g = 0; g < kGroup; ++g) at(out + r * ldo + g * kLanes) = sum[r][g];
  }
}

void multiply(const float* a, std::int64_t lda, int n_rows, std::int64_t depth, const float* x,
              std::int64_t ldx, std::int64_t first, std::int64_t last, float* out,
              std::int64_t ldo) {
  constexpr std::int64_t kDepth = 128;  // rows of x that stay in the cache while all rows of a pass
  for (int r = 0; r < n_rows; ++r) {
    for (std::int64_t j = first; j < last; ++j) out[r * ldo + j] = 0.f;
  }
  for (std::int64_t k0 = 0; k0 < depth; k0 += kDepth) {
    const std::int64_t k1 = k0 + kDepth < depth ? k0 + kDepth : depth;
    for (std::int64_t j = first; j < last; j += kCandidates) {
      int r = 0;
      for (; r + 4 <= n_rows; r += 4)
        multiply_tile<4>(a + r * lda, lda, k0, k1, x + j, ldx, out + r * ldo + j, ldo);
      for (; r < n_rows; ++r)
        multiply_tile<1>(a + r * lda, lda, k0, k1, x + j, ldx, out + r * ldo + j, ldo);
    }
  }
}

SQ_INLINE VecD widen(const double* p) { return *reinterpret_cast<const VecDLoad*>(p); }
SQ_INLINE VecD widen(const float* p) {
  return __builtin_convertvector(*reinterpret_cast<const VecHalfLoad*>(p), VecD);
}

template <int R, typename X>
SQ_INLINE void multiply_tile_double(const double* a, std::int64_t lda, std::int64_t k0,
                                    std::int64_t k1, const X* x, std::int64_t ldx, double* out,
                                    std::int64_t ldo) {
  constexpr int kLanesD = kLanes / 2, kVectors = 16 / kLanesD;
  VecD sum[R][kVectors];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = *reinterpret_cast<const VecDLoad*>(out + r * ldo + v * kLanesD);
  }
  for (std::int64_t k = k0; k < k1; ++k) {
    for (int v = 0; v < kVectors; ++v) {
      const VecD row = widen(x + k * ldx + v * kLanesD);
      for (int r = 0; r < R; ++r) sum[r][v] += a[r * lda + k] * row;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVectors; ++v)
      *reinterpret_cast<VecDLoad*>(out + r * ldo + v * kLanesD) = sum[r][v];
  }
}

template <typename X>
SQ_INLINE void multiply_any(const double* a, std::int64_t lda, int n_rows, std::int64_t depth,
                            const X* x, std::int64_t ldx, std::int64_t first, std::int64_t last,
                            double* out, std::int64_t ldo) {
  constexpr std::int64_t kDepth = 64;
  for (int r = 0; r < n_rows; ++r) {
    for (std::int64_t j = first; j < last; ++j) out[r * ldo + j] = 0.;
  }
  for (std::int64_t k0 = 0; k0 < depth; k0 += kDepth) {
    const std::int64_t k1 = k0 + kDepth < depth ? k0 + kDepth : depth;
    for (std::int64_t j = first; j < last; j += 16) {
      int r = 0;
      for (; r + 2 <= n_rows; r += 2)
        multiply_tile_double<2, X>(a + r * lda, lda, k0, k1, x + j, ldx, out + r * ldo + j, ldo);
      for (; r < n_rows; ++r)
        multiply_tile_double<1, X>(a + r * lda, lda, k0, k1, x + j, ldx, out + r * ldo + j, ldo);
    }
  }
}

void multiply_exact(const double* a, std::int64_t lda, int n_rows, std::int64_t depth,
                    const float* x, std::int64_t ldx, std::int64_t first, std::int64_t last,
                    double* out, std::int64_t ldo) {
  multiply_any<float>(a, lda, n_rows, depth, x, ldx, first, last, out, ldo);
}

void multiply_double(const double* a, std::int64_t lda, int n_rows, std::int64_t depth,
                     const double* x, std::int64_t ldx, std::int64_t first, std::int64_t last,
                     double* out, std::int64_t ldo) {
  multiply_any<double>(a, lda, n_rows, depth, x, ldx, first, last, out, ldo);
}

template <class F>
constexpr RowKernels<F> kKernels{start<F>, improve<F>};
constexpr Products kProducts{multiply, multiply_exact, multiply_double};
