#pragma once
#include "spectralquant/core/progress.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/pipeline/quantize_report.h"

namespace spectralquant::pipeline {

/// The main job: GGUF in, strict GGUF out. Results are a function of input, options, seed and
/// thread count.
///
/// What takes long is kept in a WorkFolder as it is finished: own samples, solved matrices,
/// checkpoints of tuning. A run that was killed or failed is continued by the next with the same
/// input and options, reported as phase "resume".
///
/// Errors   those of every room below; no output file is left behind by any of them.
QuantizeReport quantize_file(const QuantizeOptions& options, const Progress& progress = {});

}  // namespace spectralquant::pipeline
