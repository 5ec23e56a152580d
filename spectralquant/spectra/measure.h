#pragma once
#include "spectralquant/calibrate/collect.h"
#include "spectralquant/model/model.h"
#include "spectralquant/spectra/analyze.h"

namespace spectralquant::spectra {

/// Measures what analyze() predicts: KL(original ‖ one matrix quantized), the same of whole blocks,
/// and of whole files.
///
/// Every prediction of every window counts. One forward pass over the windows for each matrix, each
/// block and the whole, for each variant. reference runs on the file that analyze() was given,
/// variants are the same; its weights are those of its file again afterwards.
/// Errors   Error(kBadUsage) if there are no windows or they have fewer than two tokens.
void measure(Report& report, model::Model& reference, const std::vector<Variant>& variants,
             const calibrate::Windows& windows, const std::string& description,
             const Progress& progress = {});

}  // namespace spectralquant::spectra
