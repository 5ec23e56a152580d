#pragma once

namespace spectralquant::model {

/// Sets the threads of torch's own loops and of its BLAS.
///
/// at::set_num_threads() alone does not reach a BLAS that torch takes from the system (Debian's libtorch).
/// n_threads < 1 means hardware_threads().
void set_threads(int n_threads);

/// True when torch's matrix products run on a reference BLAS, about 100 times slower than an optimised one.
///
/// Knows OpenBLAS, MKL and BLIS by their symbols; any other BLAS is timed once (a few milliseconds; a tenth of a second
/// when it is slow). The cure on Debian: apt-get install libopenblas0-pthread.
bool blas_is_slow();

}  // namespace spectralquant::model
