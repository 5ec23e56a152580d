#include "spectralquant/pipeline/calibration_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/text/corpus.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::pipeline {
namespace {

std::string hash_of(const calibrate::Windows& windows) {
  Hasher hasher;
  for (const auto& tokens : windows)
    hasher.update(tokens.data(), tokens.size() * sizeof(tokens[0]));
  return hasher.hex();
}

}  // namespace

model::SamplingOptions sampling_options(const gguf::File& file, const CalibrationSource& source,
                                        std::uint64_t seed) {
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  model::SamplingOptions sampling;
  sampling.window_tokens = source.window_tokens;
  sampling.temperature = source.self_temperature;
  sampling.seed = seed;
  sampling.first_token = std::max(0, tokenizer.bos() >= 0 ? tokenizer.bos() : tokenizer.eos());
  return sampling;
}

std::int64_t n_samples(const CalibrationSource& source) {
  return (source.self_tokens + source.window_tokens - 1) / source.window_tokens;
}

CalibrationText load_text(const gguf::File& file, const CalibrationSource& source,
                          const Progress& progress) {
  if (source.files.empty() && source.self_tokens <= 0) {
    throw Error(ErrorCode::kBadUsage, "no calibration text", {},
                "give text files, or let the model write its own");
  }
  const gguf::Metadata& metadata = file.metadata();
  const auto window = static_cast<std::size_t>(source.window_tokens);
  if (const auto context = metadata.int_or(file.architecture() + ".context_length", 0);
      context > 0 && source.window_tokens > context) {
    throw Error(
        ErrorCode::kBadUsage,
        fmt::format("calibration windows of {} tokens; the model was made for {}", window, context),
        {}, "use shorter windows");
  }
  CalibrationText out;
  if (source.files.empty()) return out;
  const auto tokenizer = text::Tokenizer::from_metadata(metadata);
  const text::Corpus corpus =
      text::load_corpus(source.files, text::ChatFormat::from_metadata(metadata));
  for (const std::string& note : corpus.notes) report(progress, {"note", note});
  const std::size_t max_windows =
      source.max_tokens > 0
          ? std::max<std::size_t>(1, static_cast<std::size_t>(source.max_tokens) / window)
          : SIZE_MAX;
  out.windows =
      text::cut_windows(text::encode_documents(corpus, tokenizer), window, tokenizer.eos(),
                        max_windows, fmt::format("{}", fmt::join(source.files, ", ")));
  out.n_from_files = out.windows.size();
  for (const std::string& name : source.files) {
    if (!out.description.empty()) out.description += "+";
    out.description += std::filesystem::path(name).filename().string();
  }
  out.hash = hash_of(out.windows);
  report(progress, {"calibrate", out.description, out.windows.size() * window,
                    out.windows.size() * window, "tokens"});
  return out;
}

calibrate::Windows write_samples(model::Model& model, const CalibrationSource& source,
                                 std::uint64_t seed, const Progress& progress,
                                 const distribute::Group& group) {
  model::SamplingOptions sampling = sampling_options(model.weights().file(), source, seed);
  sampling.group = group;
  return model::sample(model, n_samples(source), sampling, progress);
}

void add_samples(CalibrationText& text, calibrate::Windows samples) {
  const std::size_t n_tokens = samples.empty() ? 0 : samples.size() * samples[0].size();
  for (auto& sample : samples) text.windows.push_back(std::move(sample));
  text.description += fmt::format("{}self:{}", text.description.empty() ? "" : "+", n_tokens);
  text.hash = hash_of(text.windows);
}

CalibrationText load_calibration(model::Model& model, const CalibrationSource& source,
                                 std::uint64_t seed, const Progress& progress,
                                 const distribute::Group& group) {
  CalibrationText out = load_text(model.weights().file(), source, progress);
  if (source.self_tokens > 0) add_samples(out, write_samples(model, source, seed, progress, group));
  return out;
}

}  // namespace spectralquant::pipeline
