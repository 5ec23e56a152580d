#pragma once
#include <torch/types.h>

#include <string_view>

#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {

/// The solver for an accelerator: the steps of solve(), with as many rows at once as the moments
/// allow.
///
/// Candidates, their order and the roundings it begins with are those of solve(). It differs in two
/// things (docs/method.md, section 4, says what they cost): rows coupled by G are proposed in
/// interleaved groups, and one stands where the objective falls given the others of its group;
/// frequencies of a tied embedding are rounded to powers of √2, so that rows share factors. With
/// the device "cpu" the same code runs on the host, to be tested.
///
/// Returns  what solve() returns; never worse, as a whole, than llama.cpp's roundings. Moments
///          may be on any device.
/// Errors   those of solve(); h must be a full matrix.
Solution solve_batched(const Problem& problem, const SolverOptions& options, torch::Device device);

/// objective() computed on a device. h may be a diagonal.
double objective_on(const Problem& problem, const format::GridMatrix& candidate,
                    torch::Device device);

/// Whether this build has kernels for the device.
bool has_batched_kernels(torch::Device device);

/// The solver that a device's matrices are solved by: "rows" (solve) or "batched".
std::string_view name_of_solver(torch::Device device);

}  // namespace spectralquant::quantize
