#pragma once
#include "spectralquant/quantize/solver.h"

namespace spectralquant::quantize {

/// The solver of solver.h written plainly in double, one row after the other, without vectors or
/// threads: the specification that the fast one is tested against. Slow: for matrices of some ten
/// thousand weights.
Solution solve_reference(const Problem& problem, const SolverOptions& options = {});

}  // namespace spectralquant::quantize
