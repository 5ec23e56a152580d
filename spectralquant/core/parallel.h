#pragma once
#include <cstddef>
#include <functional>

namespace spectralquant {

/// Number of hardware threads this process may use, at least 1.
int hardware_threads();

/// Calls body(i) once for every i in [0, n), on n_threads threads, in no promised order.
///
/// Whoever needs a result that does not depend on n_threads makes the items independent.
/// Threads  joins before it returns; n_threads < 1 means hardware_threads().
/// Errors   the first exception thrown by body is rethrown here; the items not yet begun are
///          dropped.
void parallel_for(std::size_t n, int n_threads, const std::function<void(std::size_t)>& body);

}  // namespace spectralquant
