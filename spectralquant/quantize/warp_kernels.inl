// The bodies of warp_kernels.h, each for one row. The including file gives Lane (32 floats), and
//   SQ_FN, SQ_UNROLL, splat(x), get(x, i), set(x, i, s), load(p), store(p, x), load_bytes(p),
//   store_bytes(p, x), select(mask, a, b), round_nearest(x), lane_sum(x), lane_min(x), lane_max(x),
//   first_least(x), Codes, round_half(x), put(p, v): one lane writes.

SQ_FN Lane clamp_code(Lane q) {
  q = select(q > splat(0.f), q, splat(0.f));  // NaN becomes 0
  return round_nearest(select(q < splat(15.f), q, splat(15.f)));
}

SQ_FN float clamp_six_bits(float x) { return x < 0.f ? 0.f : x > 63.f ? 63.f : x; }

SQ_FN float nearest_six_bits(float x) { return clamp_six_bits(get(round_nearest(splat(x)), 0)); }

/// A block of a row in work; lane = column.
struct Block {
  Lane code, value, m;
  float d, dmin, scale, min;
};

SQ_FN std::int64_t row_of(const Rows& rows, std::int64_t k) {
  return rows.index ? rows.index[k] : rows.first + k * rows.stride;
}

SQ_FN Block load_block(const Cells& cells, std::int64_t r, std::int64_t b, const float* m) {
  Block block;
  const std::int64_t blocks = cells.cols / kLanes;
  block.code = load_bytes(cells.code + r * cells.cols + b * kLanes);
  block.scale = cells.scale[r * blocks + b];
  block.min = cells.min[r * blocks + b];
  block.d = cells.d[r * (blocks / 8) + b / 8];
  block.dmin = cells.dmin[r * (blocks / 8) + b / 8];
  block.value = block.code * splat(block.d * block.scale) - splat(block.dmin * block.min);
  block.m = load(m);
  return block;
}

/// Error feedback inside a block; lane = candidate. target: lane = column.
SQ_FN Lane feedback(Lane target, const float* u, Lane step, Lane offset, Codes& codes) {
  const Lane one = splat(1.f), positive = select(step > splat(0.f), step, one);
  const Lane inverse = select(step > splat(0.f), one / positive, splat(0.f));
  Lane tau[kLanes], loss = splat(0.f);
  SQ_UNROLL
  for (int i = 0; i < kLanes; ++i) tau[i] = splat(get(target, i));
  SQ_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    const Lane q = clamp_code((tau[i] + offset) * inverse);
    const Lane e = (tau[i] - (q * step - offset)) * splat(1.f / u[i * kLanes + i]);
    loss = loss + e * e;
    codes.put(i, q);
    SQ_UNROLL
    for (int j = i + 1; j < kLanes; ++j) tau[j] = tau[j] - e * splat(u[i * kLanes + j]);
  }
  return loss;
}

/// Steps and offsets of one set of candidates around (scale, min); those out of range repeat the
/// centre.
struct Candidates {
  Lane scale, min;
};

SQ_FN Candidates candidates(float scale, float min, const Offsets& offsets, int part) {
  Candidates c;
  c.scale = splat(scale) + load(offsets.scale + part * kLanes);
  c.min = splat(min) + load(offsets.min + part * kLanes);
  const auto outside = (c.scale < splat(0.5f)) | (c.scale > splat(63.5f)) | (c.min < splat(-0.5f)) |
                       (c.min > splat(63.5f));
  c.scale = select(outside, splat(scale), c.scale);
  c.min = select(outside, splat(min), c.min);
  return c;
}

/// One pass of coordinate descent over the codes. Returns the change of the objective.
SQ_FN float descend(const float* h, float step, Lane& code, Lane& m) {
  if (!(step > 0.f)) return 0.f;
  const float inverse = 1.f / step;
  float gain = 0.f;
  for (int i = 0; i < kLanes; ++i) {
    const float h_ii = h[i * kLanes + i], m_i = get(m, i), now = get(code, i);
    const float q = get(clamp_code(splat(now - (h_ii > 0.f ? m_i / h_ii : 0.f) * inverse)), 0);
    if (q == now) continue;
    const float delta = (q - now) * step, change = 2.f * m_i * delta + h_ii * delta * delta;
    if (!(change < 0.f)) continue;
    gain += change;
    set(code, i, q);
    m = m + splat(delta) * load(h + i * kLanes);
  }
  return gain;
}

/// m + delta · h. delta: lane = column.
SQ_FN Lane moved(Lane m, Lane delta, const float* h) {
  for (int i = 0; i < kLanes; ++i) m = m + splat(get(delta, i)) * load(h + i * kLanes);
  return m;
}

/// The best (scale, min) near (scale0, min0) under d, dmin, codes found by feedback towards the
/// best real values of the block. With `force` the best candidate is taken even when it is worse.
/// Returns the change of the objective; 0 when the block stays.
SQ_FN float search_block(Block& block, const float* factor, float d, float dmin, float scale0,
                         float min0, bool force, int polish, const Offsets& offsets) {
  const float *h = factor, *u = factor + kLanes * kLanes,
              *u_transposed = factor + 2 * kLanes * kLanes;
  Lane um = splat(0.f), target = block.value;
  for (int j = 0; j < kLanes; ++j)
    um = um + splat(get(block.m, j)) * load(u_transposed + j * kLanes);
  for (int i = 0; i < kLanes; ++i) target = target - splat(get(um, i)) * load(u + i * kLanes);
  const float loss = lane_sum(um * um);
  const Candidates near = candidates(scale0, min0, offsets, 0);
  Codes codes;
  const Lane losses = feedback(target, u, near.scale * splat(d), near.min * splat(dmin), codes);
  const int best = first_least(losses);
  if (!force && !(get(losses, best) < loss)) return 0.f;
  const float scale = get(near.scale, best), min = get(near.min, best), step = d * scale,
              offset = dmin * min;
  float gain = get(losses, best) - loss;
  Lane code = codes.of(best);
  Lane m = moved(block.m, code * splat(step) - splat(offset) - block.value, h);
  for (int k = 0; k < polish; ++k) {
    const float change = descend(h, step, code, m);
    gain += change;
    if (change == 0.f) break;
  }
  if (!force && !(gain < -1e-6f * loss)) return 0.f;  // nothing but float noise
  block = {code, code * splat(step) - splat(offset), m, d, dmin, scale, min};
  return gain;
}

SQ_FN void round_row(const Cells& cells, std::int64_t r, const float* importance) {
  const std::int64_t blocks = cells.cols / kLanes;
  for (std::int64_t s = 0; s < cells.cols / kSuper; ++s) {
    const float* target = cells.target + r * cells.cols + s * kSuper;
    float scale[8], min[8], square = 0.f, max_scale = 0.f, max_min = 0.f;
    for (int b = 0; b < 8; ++b)
      square += lane_sum(load(target + b * kLanes) * load(target + b * kLanes));
    for (int b = 0; b < 8; ++b) {
      const Lane x = load(target + b * kLanes);
      Lane w = importance ? load(importance + s * kSuper + b * kLanes) *
                                lane_sqrt(splat(2.f * square / kSuper) + x * x)
                          : lane_sqrt(splat(lane_sum(x * x) / kLanes)) +
                                select(x > splat(0.f), x, splat(0.f) - x);
      if (!(lane_sum(w) > 0.f)) w = splat(1.f);
      const float low = lane_min(x) < 0.f ? lane_min(x) : 0.f, high = lane_max(x);
      scale[b] = 0.f;
      min[b] = -low;
      if (!(high > low)) continue;
      // Lane = trial step: 14 to 16 of them fill the range.
      const Lane inverse =
          (load_index() * splat(0.0625f) + splat(14.f)) * splat(1.f / (high - low));
      const float sum_w = lane_sum(w), sum_x = lane_sum(w * x);
      Lane l1 = splat(0.f), l2 = l1, xl = l1;
      for (int i = 0; i < kLanes; ++i) {
        const Lane l = clamp_code(inverse * splat(get(x, i) - low)), wl = splat(get(w, i)) * l;
        l1 = l1 + wl;
        l2 = l2 + wl * l;
        xl = xl + wl * splat(get(x, i));
      }
      const Lane det = splat(sum_w) * l2 - l1 * l1,
                 det_safe = select(det > splat(0.f), det, splat(1.f));
      const Lane l2_safe = select(l2 > splat(0.f), l2, splat(1.f));
      Lane fit = (splat(sum_w) * xl - splat(sum_x) * l1) / det_safe,
           base = (l2 * splat(sum_x) - l1 * xl) / det_safe;
      fit = select(base > splat(0.f), xl / l2_safe, fit);
      base = select(base > splat(0.f), splat(0.f), base);
      Lane loss = splat(0.f);
      for (int i = 0; i < kLanes; ++i) {
        const Lane l = clamp_code(inverse * splat(get(x, i) - low)),
                   e = fit * l + base - splat(get(x, i));
        loss = loss + splat(get(w, i)) * e * e;
      }
      loss = select((det > splat(0.f)) & (fit > splat(0.f)), loss, splat(3e38f));
      const int best = first_least(loss);
      if (get(loss, best) < 3e38f)
        scale[b] = get(fit, best), min[b] = -get(base, best);
      else
        scale[b] = (high - low) / 15.f;
    }
    for (int b = 0; b < 8; ++b) {
      max_scale = scale[b] > max_scale ? scale[b] : max_scale;
      max_min = min[b] > max_min ? min[b] : max_min;
    }
    const float d = round_half(max_scale / 63.f), dmin = round_half(max_min / 63.f);
    put(cells.d + r * (blocks / 8) + s, d);
    put(cells.dmin + r * (blocks / 8) + s, dmin);
    for (int b = 0; b < 8; ++b) {
      const float sc = d > 0.f ? nearest_six_bits(scale[b] / d) : 0.f,
                  mc = dmin > 0.f ? nearest_six_bits(min[b] / dmin) : 0.f;
      put(cells.scale + r * blocks + s * 8 + b, static_cast<std::uint8_t>(sc));
      put(cells.min + r * blocks + s * 8 + b, static_cast<std::uint8_t>(mc));
      const float step = d * sc;
      const Lane code =
          step > 0.f
              ? clamp_code((load(target + b * kLanes) + splat(dmin * mc)) * splat(1.f / step))
              : splat(0.f);
      store_bytes(cells.code + r * cells.cols + s * kSuper + b * kLanes, code);
    }
  }
}

SQ_FN void start_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t b,
                     const float* tau, const float* u, const Offsets& offsets, float* error) {
  const std::int64_t blocks = cells.cols / kLanes;
  const float d = cells.d[r * (blocks / 8) + b / 8], dmin = cells.dmin[r * (blocks / 8) + b / 8];
  const float scale0 = cells.scale[r * blocks + b], min0 = cells.min[r * blocks + b];
  const Lane target = load(tau + r * cells.cols + b * kLanes);
  float best_loss = 3e38f, scale = scale0, min = min0;
  Lane code = splat(0.f);
  for (int part = 0; part < offsets.n_sets; ++part) {
    const Candidates near = candidates(scale0, min0, offsets, part);
    Codes codes;
    const Lane losses = feedback(target, u, near.scale * splat(d), near.min * splat(dmin), codes);
    const int best = first_least(losses);
    if (!(get(losses, best) < best_loss)) continue;
    best_loss = get(losses, best);
    scale = get(near.scale, best);
    min = get(near.min, best);
    code = codes.of(best);
  }
  // The errors of the best candidate, lane = column.
  const Lane value = code * splat(d * scale) - splat(dmin * min);
  Lane now = target, e = splat(0.f);
  for (int i = 0; i < kLanes; ++i) {
    const float e_i = (get(now, i) - get(value, i)) / u[i * kLanes + i];
    set(e, i, e_i);
    now = now - splat(e_i) * load(u + i * kLanes);  // u is zero left of the diagonal
  }
  store(error + k * kLanes, e);
  store_bytes(cells.code + r * cells.cols + b * kLanes, code);
  put(cells.scale + r * blocks + b, static_cast<std::uint8_t>(scale));
  put(cells.min + r * blocks + b, static_cast<std::uint8_t>(min));
}

SQ_FN void write_proposal(const Proposal& out, std::int64_t k, int width, int b, const Block& block,
                          Lane before) {
  store_bytes(out.code + k * width + b * kLanes, block.code);
  put(out.scale + k * (width / kLanes) + b, static_cast<std::uint8_t>(block.scale));
  put(out.min + k * (width / kLanes) + b, static_cast<std::uint8_t>(block.min));
  store(out.delta + k * width + b * kLanes, block.value - before);
}

SQ_FN void propose_block_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t b,
                             const float* m, const float* factors, const std::int32_t* bucket,
                             const Offsets& offsets, bool scale_search, const Proposal& out) {
  const float* factor = factors + (bucket ? bucket[r] : 0) * kFactorFloats;
  Block block = load_block(cells, r, b, m + k * kLanes);
  const Lane before = block.value;
  const float step = block.d * block.scale;
  float gain = descend(factor, step, block.code, block.m);
  block.value = block.code * splat(step) - splat(block.dmin * block.min);
  if (scale_search)
    gain +=
        search_block(block, factor, block.d, block.dmin, block.scale, block.min, false, 2, offsets);
  write_proposal(out, k, kLanes, 0, block, before);
  put(out.d + k, block.d);
  put(out.dmin + k, block.dmin);
  put(out.gain + k, gain);
}

SQ_FN void propose_super_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t s,
                             const float* m, const float* factors, const float* h,
                             const std::int32_t* bucket, const Offsets& offsets,
                             const Proposal& out) {
  const std::int64_t part = bucket ? bucket[r] : 0;
  factors += part * 8 * kFactorFloats;
  h += part * kSuper * kSuper;
  Block now[8];
  Lane first[8];
  for (int b = 0; b < 8; ++b) {
    now[b] = load_block(cells, r, s * 8 + b, m + k * kSuper + b * kLanes);
    first[b] = now[b].value;
  }
  float total = 0.f;
  for (int trial = 0; trial < 8; ++trial) {
    const float d0 = now[0].d, dmin0 = now[0].dmin;
    const float ratio = trial % 4 == 0   ? 0.96f
                        : trial % 4 == 1 ? 0.985f
                        : trial % 4 == 2 ? 1.015f
                                         : 1.04f;
    const float d = trial < 4 ? round_half(d0 * ratio) : d0,
                dmin = trial < 4 ? dmin0 : round_half(dmin0 * ratio);
    if (!(d > 0.f) || (d == d0 && dmin == dmin0)) continue;
    const float d_ratio = d0 / d, dmin_ratio = dmin > 0.f ? dmin0 / dmin : 0.f;
    Block next[8];
    float gain = 0.f;
    for (int b = 0; b < 8; ++b) next[b] = now[b];
    for (int b = 0; b < 8; ++b) {
      gain += search_block(next[b], factors + b * kFactorFloats, d, dmin,
                           nearest_six_bits(now[b].scale * d_ratio),
                           nearest_six_bits(now[b].min * dmin_ratio), true, 1, offsets);
      const Lane delta = next[b].value - now[b].value;
      for (int i = 0; i < kLanes; ++i) {
        const float change = get(delta, i);
        const float* row = h + (b * kLanes + i) * kSuper;
        for (int other = 0; other < 8; ++other) {
          if (other != b)
            next[other].m = next[other].m + splat(change) * load(row + other * kLanes);
        }
      }
    }
    if (!(gain < 0.f)) continue;
    for (int b = 0; b < 8; ++b) now[b] = next[b];
    total += gain;
  }
  for (int b = 0; b < 8; ++b) write_proposal(out, k, kSuper, b, now[b], first[b]);
  put(out.d + k, now[0].d);
  put(out.dmin + k, now[0].dmin);
  put(out.gain + k, total);
}

SQ_FN void commit_row(const Cells& cells, std::int64_t r, std::int64_t k, std::int64_t column,
                      int width, const std::uint8_t* accept, const Proposal& proposal) {
  const std::int64_t blocks = cells.cols / kLanes;
  for (int b = 0; b < width / kLanes; ++b) {
    float* delta = proposal.delta + k * width + b * kLanes;
    if (!accept[k]) {
      store(delta, splat(0.f));
      continue;
    }
    const std::int64_t at = r * cells.cols + column + b * kLanes,
                       block = r * blocks + column / kLanes + b;
    store_bytes(cells.code + at, load_bytes(proposal.code + k * width + b * kLanes));
    put(cells.scale + block, proposal.scale[k * (width / kLanes) + b]);
    put(cells.min + block, proposal.min[k * (width / kLanes) + b]);
    store(cells.error + at, load(cells.error + at) + load(delta));
  }
  if (!accept[k]) return;
  put(cells.d + r * (blocks / 8) + column / kSuper, proposal.d[k]);
  put(cells.dmin + r * (blocks / 8) + column / kSuper, proposal.dmin[k]);
}

SQ_FN void decode_row(const Cells& cells, std::int64_t r) {
  for (std::int64_t b = 0; b < cells.cols / kLanes; ++b) {
    const std::int64_t at = r * cells.cols + b * kLanes;
    const Block block = load_block(cells, r, b, cells.target + at);
    store(cells.error + at, block.value - block.m);
  }
}
