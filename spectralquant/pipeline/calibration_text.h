#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/core/progress.h"
#include "spectralquant/distribute/group.h"
#include "spectralquant/model/sampling.h"
#include "spectralquant/pipeline/quantize_options.h"

namespace spectralquant::pipeline {

/// Calibration windows as the options ask for: of texts, own samples, or both.
struct CalibrationText {
  calibrate::Windows windows;  ///< those of texts first
  std::size_t n_from_texts = 0;
  std::string description, hash;
};

/// Where text is needed and none is given: the general text, of it as many tokens as the hidden
/// size asks for, and samples of the model where it writes them quickly, on an accelerator or if
/// it is small.
void choose_default_text(CalibrationSource& source, const gguf::File& file,
                         std::string_view device);

/// Adds what one word names: "general", a file, a glob, "self" or "self:N".
/// Errors   Error(kBadUsage) unless N is a number above 0.
void add_source(CalibrationSource& source, const std::string& word);

/// The words of a source: "general", its files, then "self:N".
std::vector<std::string> source_words(const CalibrationSource& source);

/// How a model writes own samples: from its first token, at CalibrationSource::self_temperature.
model::SamplingOptions sampling_options(const gguf::File& file, const CalibrationSource& source,
                                        std::uint64_t seed);

/// The windows of the texts alone; none if there are only own samples. Chats of the general text
/// stand as "role: content" where the model's chat format is not known.
CalibrationText load_text(const gguf::File& file, const CalibrationSource& source,
                          const Progress& progress = {});

/// Windows that the model is to write itself.
std::int64_t n_samples(const CalibrationSource& source);
calibrate::Windows write_samples(model::Model& model, const CalibrationSource& source,
                                 std::uint64_t seed, const Progress& progress = {},
                                 const distribute::Group& group = {});
void add_samples(CalibrationText& text, calibrate::Windows samples);

/// All of it: load_text() and own samples.
CalibrationText load_calibration(model::Model& model, const CalibrationSource& source,
                                 std::uint64_t seed, const Progress& progress = {},
                                 const distribute::Group& group = {});

}  // namespace spectralquant::pipeline
