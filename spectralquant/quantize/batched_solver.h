#pragma once
#include <torch/torch.h>

#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {

/// The solver for an accelerator: the steps of solve(), with as many rows at once as the moments
/// allow.
///
/// Differs from solve() in three things: rows coupled by G are proposed in interleaved groups, and
/// one stands where the objective falls given the others of its group; frequencies of a tied
/// embedding are rounded to powers of √2, so that rows share factors; plain and weighted rounding
/// are this solver's own (32 trial steps a block). With the device "cpu" the same code runs on the
/// host, to be tested.
///
/// Returns  what solve() returns; never worse than its own plain and weighted rounding. Moments may
///          be on any device.
/// Errors   those of solve(); h must be a full matrix.
Solution solve_batched(const Problem& problem, const SolverOptions& options, torch::Device device);

/// objective() computed on a device. h may be a diagonal.
double objective_on(const Problem& problem, const Q4KMatrix& candidate, torch::Device device);

/// Whether this build has kernels for the device.
bool has_batched_kernels(torch::Device device);

}  // namespace spectralquant::quantize
