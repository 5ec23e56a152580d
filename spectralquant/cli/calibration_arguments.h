#pragma once
#include "spectralquant/cli/verbs.h"
#include "spectralquant/pipeline/quantize_file.h"

namespace spectralquant::cli {

/// Splits "FILE … self:N" into files and own samples. Nothing given: self:131072 if `needed`.
pipeline::CalibrationSource to_source(const CalibrationArguments& arguments, bool needed);

}  // namespace spectralquant::cli
