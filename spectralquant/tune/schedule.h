#pragma once
#include <cstdint>
#include <vector>

namespace spectralquant::tune {

/// One stage of a run: columns are fixed up to a share of each matrix, then what is still free is
/// trained.
struct Stage {
  double share = 0;  ///< of the columns, fixed when the stage begins; 1 in the last
  std::int64_t n_steps = 0;
};

/// The stages of a run of n_steps steps: the more steps, the smaller the shares. The last stage has
/// nothing free but F32 tensors and super-scales.
std::vector<Stage> make_stages(std::int64_t n_steps);

/// Factor on the rates at a step of a stage: it rises over the first steps, stays, and falls to a
/// tenth over the second half; in the last stage it falls along half a cosine to nothing.
double rate_at(std::int64_t step, std::int64_t n_steps, bool last_stage);

/// Columns of n that a share means: a multiple of four.
std::int64_t columns_of(double share, std::int64_t n_columns);

/// What autograd may keep of one pass on an accelerator; a step takes as many passes as it needs.
inline constexpr std::int64_t kMostPassBytes = std::int64_t{20} << 30;

/// Tokens of one step for a run of so many: small runs take small steps, so that there are enough.
std::int64_t default_batch_tokens(std::int64_t n_tokens);

/// Tokens that --effort best tunes on, on an accelerator: what takes some minutes for a small model
/// and an hour for one of a billion weights.
std::int64_t default_tokens(std::int64_t n_weights);

}  // namespace spectralquant::tune
