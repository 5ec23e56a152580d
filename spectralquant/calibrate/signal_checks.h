#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spectralquant/calibrate/signals.h"
#include "spectralquant/model/model.h"

namespace spectralquant::calibrate {

/// Errors   Error(kBadInput) naming the first matrix with a moment that is not finite: what went
///          into it, or came back to it, overflowed.
void require_finite(const Signals& signals, const std::string& place);

/// Bytes of the signals that collect() would gather of a model, as save_signals() stores them.
std::uint64_t size_bytes_of_signals(const model::Architecture& architecture, const gguf::File& file,
                                    bool output_moments);

/// Aligned runs of columns that no input reached, in a matrix that has inputs elsewhere.
struct UnreachedColumns {
  std::string name;            ///< of the tensor
  std::int64_t n_columns = 0;  ///< in the runs; of a stack, in all its matrices
  std::int64_t n_cols = 0;     ///< in all
  std::int64_t first = 0;      ///< column that the first run begins with
};

/// Experts that no token of the calibration was routed to: how many of a stack.
struct IdleExperts {
  std::string name;  ///< of the tensor
  std::int64_t n_idle = 0, n_experts = 0;
};

/// Stacks with such experts.
std::vector<IdleExperts> find_idle_experts(const Signals& signals);

/// Matrices whose diag(H) is zero in whole runs of so many columns, but not throughout.
std::vector<UnreachedColumns> find_unreached_columns(const Signals& signals,
                                                     std::int64_t run_columns);

}  // namespace spectralquant::calibrate
