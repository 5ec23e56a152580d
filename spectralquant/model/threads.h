#pragma once
#include <torch/types.h>

#include <cstddef>
#include <functional>

namespace spectralquant::model {

/// Sets the threads of torch's own loops and of its BLAS.
///
/// at::set_num_threads() alone does not reach a BLAS that torch takes from the system (Debian's
/// libtorch). n_threads < 1 means hardware_threads().
void set_threads(int n_threads);

/// True when torch's matrix products run on a reference BLAS, about 100 times slower than an
/// optimised one.
///
/// Knows OpenBLAS, MKL and BLIS by their symbols; any other BLAS is timed once (a few milliseconds;
/// a tenth of a second when it is slow). The cure on Debian: apt-get install libopenblas0-pthread.
bool blas_is_slow();

/// Runs work(i) for i in [0, n), several at once, and what each returns in the order of i, one at a
/// time.
///
/// Batches of a forward pass scale better side by side, each on one thread, than operator by
/// operator: on the CPU as many run at once as set_threads() allows, each with one thread for its
/// operators; on an accelerator one after the other. Sums made in the returned functions do not
/// depend on the number of threads. The caller's gradient mode holds in work.
///
/// Errors   the first exception thrown is rethrown here; batches not yet begun are dropped.
void for_each_in_order(std::size_t n, torch::Device device,
                       const std::function<std::function<void()>(std::size_t)>& work);

}  // namespace spectralquant::model
