#pragma once
#include <string>

#include "spectralquant/gguf/file.h"
#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

/// What neither the file nor the results can know.
struct CardOptions {
  /// OWNER/NAME on the model hub; "": from the metadata, if they name it
  std::string base_model;
  std::string quantized_by;  ///< who publishes the file; "": SpectralQuant
};

/// README.md of a quantized file for a model hub: metadata header, what it is, scores, how it was
/// made, how to run it, limits, how to make it again.
///
/// Every figure comes from the file's own bytes and metadata or from the results of `eval --json`;
/// what neither of them says is left open, and named. Names and values of files are text in it, and
/// its commands can be pasted into bash.
/// Errors   those of evaluate::parse_results(); Error(kBadInput) if `spectralquant quantize` did
///          not make the file, or if the results have no scores of a file with its hash.
std::string to_card(const gguf::File& model, const Source& results,
                    const CardOptions& options = {});

}  // namespace spectralquant::publish
