#pragma once
#include <string>

#include "spectralquant/spectra/analyze.h"

namespace spectralquant::spectra {

/// Everything in a Report, as docs/spectra.md describes it; figures that are not known are null.
/// eigenvalues: also every eigenvalue, not only the curve of each spectrum.
std::string to_json(const Report& report, bool eigenvalues);

/// Tables with bars. n_rows: matrices shown in each, those whose error costs most first (without
/// errors: in the model's order); 0: all.
std::string to_terminal(const Report& report, std::size_t n_rows, bool color);

/// Bar of a spectrum: heights are log10(λ / λ₁) over six decades, at `width` logarithmically spaced
/// ranks.
std::string sparkline(const Spectrum& spectrum, std::size_t width);

}  // namespace spectralquant::spectra
