#pragma once
#include "spectralquant/pipeline/calibration.h"
#include "spectralquant/pipeline/quantize_options.h"
#include "spectralquant/quantize/plan.h"

namespace spectralquant::pipeline {

/// Most of the host's memory that solving a model along its text takes at once, on a CPU.
///
/// Each phase is summed up from the sizes of what it holds; the largest counts. The mapped input is
/// left out: its pages leave memory once they are used.
///
/// Units    bytes.
double host_memory(const quantize::Plan& plan, const Calibration& calibration,
                   const QuantizeOptions& options);

}  // namespace spectralquant::pipeline
