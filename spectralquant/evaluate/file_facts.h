#pragma once
#include <string>

#include "spectralquant/evaluate/cache.h"
#include "spectralquant/evaluate/table.h"

namespace spectralquant::evaluate {

/// What a file says of itself: size, bits a weight, types. Its name is still to be given.
Row describe(const gguf::File& file);

/// The first weight that is NaN or infinite, "blk.0.ffn_up.weight holds NaN at row 3, column 17";
/// "" where all are finite. Decodes the whole file once; the cache keeps the answer.
std::string first_not_finite(const gguf::File& file, Cache& cache);

}  // namespace spectralquant::evaluate
