#pragma once
#include <cstdint>
#include <vector>

namespace spectralquant::tune {

/// One stage of a run: of the columns of each matrix, in their order, those from a share to another
/// are free and trained; all others stand on the grid.
struct Stage {
  double from = 0, to = 1;  ///< equal in the last stage
  std::int64_t n_steps = 0;

  double fixed() const { return 1 - (to - from); }
};

/// Where a run begins: at the original, with nothing fixed, or at the solved file, with all of it.
enum class Start { kOriginal, kSolved };

/// The better start for a run of so many tokens. From the original everything learns, which takes
/// tokens; the solved file has what the solver gained without any.
Start start_of(std::int64_t n_tokens, std::int64_t n_weights);

/// The stages of a run of n_steps steps. From the original: the more steps, the smaller the shares
/// that are fixed. From the solved file: a part of the columns is free at a time, and takes up the
/// errors of the part before it. The last stage has nothing free but F32 tensors and super-scales.
std::vector<Stage> make_stages(Start start, std::int64_t n_steps);

/// Factor on the rates at a step of a stage: it rises over the first steps, stays, and falls to a
/// tenth over the second half; in the last stage it falls along half a cosine to nothing.
double rate_at(std::int64_t step, std::int64_t n_steps, bool last_stage);

/// Columns of n that a share means: a multiple of four.
std::int64_t columns_of(double share, std::int64_t n_columns);

/// What autograd may keep of one pass on an accelerator; a step takes as many passes as it needs.
inline constexpr std::int64_t kMostPassBytes = std::int64_t{20} << 30;

/// Tokens of one step for a run of so many: small runs take small steps, so that there are enough.
std::int64_t default_batch_tokens(std::int64_t n_tokens);

/// Tokens that --effort best tunes on. On an accelerator: what takes some minutes for a small model
/// and an hour for one of a billion weights. On a CPU: what two cores do in half an hour; 0 where
/// that is too little to gain by.
std::int64_t default_tokens(std::int64_t n_weights, bool on_cpu);

}  // namespace spectralquant::tune
