#pragma once
#include <string>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::pipeline {

/// The command line that makes a file again, from the keys spectralquant.* of its metadata: the
/// inverse of options_json().
///
/// Calibration texts and signals are named by file name, as the metadata hold no paths.
/// Errors   Error(kBadInput) if the file was not made by this program, or by a version whose
///          options this one does not know.
std::string quantize_command(const gguf::Metadata& metadata, const std::string& input,
                             const std::string& output);

}  // namespace spectralquant::pipeline
