// The bodies of warp_kernels.h, each for one row, templates over the shape F. The including file
// gives Lane (32 floats), and
//   SQ_FN, SQ_UNROLL, splat(x), get(x, i), set(x, i, s), load<N>(p), store<N>(p, x),
//   load_bytes<N>(p), store_bytes<N>(p, x): N of the lanes, the others read 0; select(mask, a, b),
//   round_nearest(x), lane_sum(x), first_least(x), Codes<F>, round_half(x) of a number or a Lane,
//   put(p, v): one lane writes.
// Where a lane is a column, those past the block hold nothing of meaning: they are read as 0 where
// lanes are summed, and never stored.

/// The code nearest to q, or its level.
template <class F>
SQ_FN Lane nearest_code(const Numbers& n, Lane q) {
  if constexpr (F::kHasLevels) {
    Lane level = splat(n.level[0]);
    SQ_UNROLL
    for (int k = 1; k < kLevels; ++k)
      level = select(q > splat(n.begin[k]), splat(n.level[k]), level);
    return level;
  } else {
    const float lowest = static_cast<float>(n.code.lowest),
                highest = static_cast<float>(n.code.highest);
    q = select(q > splat(lowest), q, splat(lowest));  // NaN becomes the lowest
    return round_nearest(select(q < splat(highest), q, splat(highest)));
  }
}

/// A code as the kernels compute with it, and the way back.
template <class F>
SQ_FN Lane level_of(const Numbers& n, Lane code) {
  if constexpr (!F::kHasLevels) return code;
  Lane level = splat(n.level[0]);
  SQ_UNROLL
  for (int k = 1; k < kLevels; ++k)
    level = select(code > splat(static_cast<float>(k) - 0.5f), splat(n.level[k]), level);
  return level;
}
template <class F>
SQ_FN Lane code_of(const Numbers& n, Lane level) {
  if constexpr (!F::kHasLevels) return level;
  Lane code = splat(0.f);
  SQ_UNROLL
  for (int k = 1; k < kLevels; ++k)
    code = select(level > splat(n.begin[k]), splat(static_cast<float>(k)), code);
  return code;
}

SQ_FN float nearest_in(const format::Range& range, float x) {
  const float lowest = static_cast<float>(range.lowest),
              highest = static_cast<float>(range.highest);
  x = get(round_nearest(splat(x)), 0);
  return x < lowest ? lowest : x > highest ? highest : x;
}

/// A step, or d, that values can be divided by.
template <class F>
SQ_FN bool is_usable(float step) {
  return F::kHasSignedSteps ? step > 0.f || step < 0.f : step > 0.f;
}

template <class F>
SQ_FN float offset_of(float dmin, float min) {
  return F::kHasMin ? dmin * min : 0.f;
}

/// A block of a row in work; lane = column.
struct Block {
  Lane code, value, m;
  float d, dmin, scale, min;
};

SQ_FN std::int64_t row_of(const Rows& rows, std::int64_t k) {
  return rows.index ? rows.index[k] : rows.first + k * rows.stride;
}

template <class F>
SQ_FN Block load_block(const Cells& cells, std::int64_t r, std::int64_t b, const float* m) {
  Block block;
  const std::int64_t blocks = cells.cols / F::kBlock;
  block.code = level_of<F>(cells.numbers,
                           load_bytes<F::kBlock>(cells.code + r * cells.cols + b * F::kBlock));
  block.scale = cells.scale[r * blocks + b];
  block.min = cells.min[r * blocks + b];
  block.d = cells.d[r * (blocks / F::kBlocks) + b / F::kBlocks];
  block.dmin = cells.dmin[r * (blocks / F::kBlocks) + b / F::kBlocks];
  block.value =
      block.code * splat(block.d * block.scale) - splat(offset_of<F>(block.dmin, block.min));
  block.m = load<F::kBlock>(m);
  return block;
}

/// Error feedback inside a block; lane = candidate. target: lane = column.
template <class F>
SQ_FN Lane feedback(const Numbers& n, Lane target, const float* u, Lane step, Lane offset,
                    Codes<F>& codes) {
  const Lane one = splat(1.f);
  auto usable = step > splat(0.f);
  if constexpr (F::kHasSignedSteps) usable = usable | (step < splat(0.f));
  const Lane inverse = select(usable, one / select(usable, step, one), splat(0.f));
  Lane tau[F::kBlock], loss = splat(0.f);
  SQ_UNROLL
  for (int i = 0; i < F::kBlock; ++i) tau[i] = splat(get(target, i));
  SQ_UNROLL
  for (int i = 0; i < F::kBlock; ++i) {
    const Lane q = nearest_code<F>(n, (tau[i] + offset) * inverse);
    const Lane e = (tau[i] - (q * step - offset)) * splat(1.f / u[i * F::kBlock + i]);
    loss = loss + e * e;
    codes.put(i, code_of<F>(n, q), n);
    SQ_UNROLL
    for (int j = i + 1; j < F::kBlock; ++j) tau[j] = tau[j] - e * splat(u[i * F::kBlock + j]);
  }
  return loss;
}

/// One set of candidates around (scale, min), or d where there are no scales; those out of range,
/// or without a step, repeat it.
struct Candidates {
  Lane d, scale, min;
};

template <class F>
SQ_FN Candidates candidates(const Numbers& n, float d, float scale, float min,
                            const Offsets& offsets, int part) {
  Candidates c;
  c.d = splat(d);
  c.scale = splat(scale);
  c.min = splat(min);
  Lane s = c.scale, m = c.min;
  if constexpr (!F::kHasScales) {
    const Lane trial =
        round_half(c.d * (load<kLanes>(offsets.flip + part * kLanes) +
                          load<kLanes>(offsets.up + part * kLanes) * splat(n.step_of_d)));
    c.d = select((trial > splat(0.f)) | (trial < splat(0.f)), trial, c.d);
    return c;
  }
  if constexpr (F::kHasSignedSteps) s = s * load<kLanes>(offsets.flip + part * kLanes);
  s = s + load<kLanes>(offsets.up + part * kLanes);
  auto inside = (s > splat(0.5f)) & (s < splat(static_cast<float>(n.scale.highest) + 0.5f));
  if constexpr (F::kHasSignedSteps)
    inside = inside | ((s < splat(-0.5f)) & (s > splat(static_cast<float>(n.scale.lowest) - 0.5f)));
  if constexpr (F::kHasMin) {
    m = m + load<kLanes>(offsets.min_up + part * kLanes);
    inside = inside & (m > splat(-0.5f)) & (m < splat(static_cast<float>(n.min.highest) + 0.5f));
  }
  c.scale = select(inside, s, c.scale);
  c.min = select(inside, m, c.min);
  return c;
}

/// One pass of coordinate descent over the codes. Returns the change of the objective.
template <class F>
SQ_FN float descend(const Numbers& n, const float* h, float step, Lane& code, Lane& m) {
  if (!is_usable<F>(step)) return 0.f;
  const float inverse = 1.f / step;
  float gain = 0.f;
  for (int i = 0; i < F::kBlock; ++i) {
    const float h_ii = h[i * F::kBlock + i], m_i = get(m, i), now = get(code, i);
    const float q =
        get(nearest_code<F>(n, splat(now - (h_ii > 0.f ? m_i / h_ii : 0.f) * inverse)), 0);
    if (q == now) continue;
    const float delta = (q - now) * step, change = 2.f * m_i * delta + h_ii * delta * delta;
    if (!(change < 0.f)) continue;
    gain += change;
    set(code, i, q);
    m = m + splat(delta) * load<F::kBlock>(h + i * F::kBlock);
  }
  return gain;
}

/// m + delta · h. delta: lane = column.
template <class F>
SQ_FN Lane moved(Lane m, Lane delta, const float* h) {
  for (int i = 0; i < F::kBlock; ++i)
    m = m + splat(get(delta, i)) * load<F::kBlock>(h + i * F::kBlock);
  return m;
}

/// The best (scale, min) near (scale0, min0) under d0, dmin, codes found by feedback towards the
/// best real values of the block. With `force` the best candidate is taken even when it is worse.
/// Returns the change of the objective; 0 when the block stays.
template <class F>
SQ_FN float search_block(const Numbers& n, Block& block, const float* factor, float d0, float dmin,
                         float scale0, float min0, bool force, int polish, const Offsets& offsets) {
  const float *h = factor, *u = factor + F::kBlock * F::kBlock,
              *u_transposed = factor + 2 * F::kBlock * F::kBlock;
  Lane um = splat(0.f), target = block.value;
  for (int j = 0; j < F::kBlock; ++j)
    um = um + splat(get(block.m, j)) * load<F::kBlock>(u_transposed + j * F::kBlock);
  for (int i = 0; i < F::kBlock; ++i)
    target = target - splat(get(um, i)) * load<F::kBlock>(u + i * F::kBlock);
  const float loss = lane_sum(um * um);
  const Candidates near = candidates<F>(n, d0, scale0, min0, offsets, 0);
  Codes<F> codes;
  const Lane losses = feedback<F>(n, target, u, near.scale * near.d, near.min * splat(dmin), codes);
  const int best = first_least(losses);
  if (!force && !(get(losses, best) < loss)) return 0.f;
  const float d = get(near.d, best), scale = get(near.scale, best), min = get(near.min, best),
              step = d * scale, offset = offset_of<F>(dmin, min);
  float gain = get(losses, best) - loss;
  Lane code = level_of<F>(n, codes.of(best, n));
  Lane m = moved<F>(block.m, code * splat(step) - splat(offset) - block.value, h);
  for (int k = 0; k < polish; ++k) {
    const float change = descend<F>(n, h, step, code, m);
    gain += change;
    if (change == 0.f) break;
  }
  if (!force && !(gain < -kNoise * loss)) return 0.f;  // nothing but float noise
  block = {code, code * splat(step) - splat(offset), m, d, dmin, scale, min};
  return gain;
}

template <class F>
SQ_FN void start_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t b,
                     const float* tau, const float* u, const Offsets& offsets, float* error) {
  const std::int64_t blocks = cells.cols / F::kBlock;
  const float d = cells.d[r * (blocks / F::kBlocks) + b / F::kBlocks],
              dmin = cells.dmin[r * (blocks / F::kBlocks) + b / F::kBlocks];
  const float scale0 = cells.scale[r * blocks + b], min0 = cells.min[r * blocks + b];
  const Lane target = load<F::kBlock>(tau + r * cells.cols + b * F::kBlock);
  float best_loss = 3e38f, step_d = d, scale = scale0, min = min0;
  Lane code = splat(0.f);
  for (int part = 0; part < offsets.n_sets; ++part) {
    const Candidates near = candidates<F>(cells.numbers, d, scale0, min0, offsets, part);
    Codes<F> codes;
    const Lane losses =
        feedback<F>(cells.numbers, target, u, near.scale * near.d, near.min * splat(dmin), codes);
    const int best = first_least(losses);
    if (!(get(losses, best) < best_loss)) continue;
    best_loss = get(losses, best);
    step_d = get(near.d, best);
    scale = get(near.scale, best);
    min = get(near.min, best);
    code = level_of<F>(cells.numbers, codes.of(best, cells.numbers));
  }
  // The errors of the best candidate, lane = column.
  const Lane value = code * splat(step_d * scale) - splat(offset_of<F>(dmin, min));
  Lane now = target, e = splat(0.f);
  for (int i = 0; i < F::kBlock; ++i) {
    const float e_i = (get(now, i) - get(value, i)) / u[i * F::kBlock + i];
    set(e, i, e_i);
    now = now - splat(e_i) * load<F::kBlock>(u + i * F::kBlock);  // u is zero left of the diagonal
  }
  store<F::kBlock>(error + k * F::kBlock, e);
  store_bytes<F::kBlock>(cells.code + r * cells.cols + b * F::kBlock,
                         code_of<F>(cells.numbers, code));
  if constexpr (!F::kHasScales) put(cells.d + r * blocks + b, step_d);
  put(cells.scale + r * blocks + b, static_cast<std::int8_t>(scale));
  put(cells.min + r * blocks + b, static_cast<std::int8_t>(min));
}

template <class F>
SQ_FN void write_proposal(const Numbers& n, const Proposal& out, std::int64_t k, int width, int b,
                          const Block& block, Lane before) {
  store_bytes<F::kBlock>(out.code + k * width + b * F::kBlock, code_of<F>(n, block.code));
  put(out.scale + k * (width / F::kBlock) + b, static_cast<std::int8_t>(block.scale));
  put(out.min + k * (width / F::kBlock) + b, static_cast<std::int8_t>(block.min));
  store<F::kBlock>(out.delta + k * width + b * F::kBlock, block.value - before);
}

template <class F>
SQ_FN void propose_block_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t b,
                             const float* m, const float* factors, const std::int32_t* bucket,
                             const Offsets& offsets, bool scale_search, const Proposal& out) {
  const float* factor = factors + (bucket ? bucket[r] : 0) * kFactorFloats<F>;
  Block block = load_block<F>(cells, r, b, m + k * F::kBlock);
  const Lane before = block.value;
  const float step = block.d * block.scale;
  float gain = descend<F>(cells.numbers, factor, step, block.code, block.m);
  block.value = block.code * splat(step) - splat(offset_of<F>(block.dmin, block.min));
  if (scale_search)
    gain += search_block<F>(cells.numbers, block, factor, block.d, block.dmin, block.scale,
                            block.min, false, kBlockPolish, offsets);
  write_proposal<F>(cells.numbers, out, k, F::kBlock, 0, block, before);
  put(out.d + k, block.d);
  put(out.dmin + k, block.dmin);
  put(out.gain + k, gain);
}

template <class F>
SQ_FN void propose_super_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t s,
                             const float* m, const float* factors, const float* h,
                             const std::int32_t* bucket, const Offsets& offsets,
                             const Proposal& out) {
  const Numbers& n = cells.numbers;
  const std::int64_t part = bucket ? bucket[r] : 0;
  factors += part * F::kBlocks * kFactorFloats<F>;
  h += part * F::kSuper * F::kSuper;
  Block now[F::kBlocks];
  Lane first[F::kBlocks];
  for (int b = 0; b < F::kBlocks; ++b) {
    now[b] = load_block<F>(cells, r, s * F::kBlocks + b, m + k * F::kSuper + b * F::kBlock);
    first[b] = now[b].value;
  }
  float total = 0.f;
  for (int trial = 0; trial < (F::kHasMin ? 2 : 1) * kRatios; ++trial) {
    const float d0 = now[0].d, dmin0 = now[0].dmin;
    const int k4 = trial % kRatios;
    const float ratio = k4 == 0   ? kMuchSmaller
                        : k4 == 1 ? kSmaller
                        : k4 == 2 ? kLarger
                                  : kMuchLarger;
    const float d = trial < kRatios ? round_half(d0 * ratio) : d0,
                dmin = trial < kRatios ? dmin0 : round_half(dmin0 * ratio);
    if (!is_usable<F>(d) || (d == d0 && dmin == dmin0)) continue;
    const float d_ratio = d0 / d, dmin_ratio = dmin > 0.f ? dmin0 / dmin : 0.f;
    Block next[F::kBlocks];
    float gain = 0.f;
    for (int b = 0; b < F::kBlocks; ++b) next[b] = now[b];
    for (int b = 0; b < F::kBlocks; ++b) {
      gain +=
          search_block<F>(n, next[b], factors + b * kFactorFloats<F>, d, dmin,
                          nearest_in(n.scale, now[b].scale * d_ratio),
                          nearest_in(n.min, now[b].min * dmin_ratio), true, kSuperPolish, offsets);
      const Lane delta = next[b].value - now[b].value;
      for (int i = 0; i < F::kBlock; ++i) {
        const float change = get(delta, i);
        const float* row = h + (b * F::kBlock + i) * F::kSuper;
        for (int other = 0; other < F::kBlocks; ++other) {
          if (other != b)
            next[other].m =
                next[other].m + splat(change) * load<F::kBlock>(row + other * F::kBlock);
        }
      }
    }
    if (!(gain < 0.f)) continue;
    for (int b = 0; b < F::kBlocks; ++b) now[b] = next[b];
    total += gain;
  }
  for (int b = 0; b < F::kBlocks; ++b) write_proposal<F>(n, out, k, F::kSuper, b, now[b], first[b]);
  put(out.d + k, now[0].d);
  put(out.dmin + k, now[0].dmin);
  put(out.gain + k, total);
}

template <class F>
SQ_FN void commit_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t column,
                      int width, const std::uint8_t* accept, const Proposal& proposal) {
  const std::int64_t blocks = cells.cols / F::kBlock;
  for (int b = 0; b < width / F::kBlock; ++b) {
    float* delta = proposal.delta + k * width + b * F::kBlock;
    if (!accept[k]) {
      store<F::kBlock>(delta, splat(0.f));
      continue;
    }
    const std::int64_t at = r * cells.cols + column + b * F::kBlock,
                       block = r * blocks + column / F::kBlock + b;
    store_bytes<F::kBlock>(cells.code + at,
                           load_bytes<F::kBlock>(proposal.code + k * width + b * F::kBlock));
    put(cells.scale + block, proposal.scale[k * (width / F::kBlock) + b]);
    put(cells.min + block, proposal.min[k * (width / F::kBlock) + b]);
    store<F::kBlock>(cells.error + at, load<F::kBlock>(cells.error + at) + load<F::kBlock>(delta));
  }
  if (!accept[k]) return;
  put(cells.d + r * (blocks / F::kBlocks) + column / F::kSuper, proposal.d[k]);
  put(cells.dmin + r * (blocks / F::kBlocks) + column / F::kSuper, proposal.dmin[k]);
}

template <class F>
SQ_FN void decode_row(const Cells& cells, std::int64_t r) {
  for (std::int64_t b = 0; b < cells.cols / F::kBlock; ++b) {
    const std::int64_t at = r * cells.cols + b * F::kBlock;
    const Block block = load_block<F>(cells, r, b, cells.target + at);
    store<F::kBlock>(cells.error + at, block.value - block.m);
  }
}
