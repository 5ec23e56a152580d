#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/pipeline/quantize_file.h"
#include "spectralquant/text/corpus.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::pipeline {

model::SamplingOptions sampling_options(const gguf::File& file, std::int64_t window_tokens, std::uint64_t seed) {
  const auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
  model::SamplingOptions sampling;
  sampling.window_tokens = window_tokens;
  sampling.seed = seed;
  sampling.first_token = std::max(0, tokenizer.bos() >= 0 ? tokenizer.bos() : tokenizer.eos());
  return sampling;
}

CalibrationText load_calibration(model::Model& model, const CalibrationSource& source, std::uint64_t seed, const Progress& progress) {
  if (source.files.empty() && source.self_tokens <= 0) {
    throw Error(ErrorCode::kBadUsage, "no calibration text", {}, "give text files, or let the model write its own");
  }
  const gguf::Metadata& metadata = model.weights().file().metadata();
  const auto window = static_cast<std::size_t>(source.window_tokens);
  const std::string context_key = model.weights().file().architecture() + ".context_length";
  if (const auto context = metadata.int_or(context_key, 0); context > 0 && source.window_tokens > context) {
    throw Error(ErrorCode::kBadUsage, fmt::format("calibration windows of {} tokens; the model was made for {}", window, context), {}, "use shorter windows");
  }
  const auto tokenizer = text::Tokenizer::from_metadata(metadata);
  CalibrationText out;
  if (!source.files.empty()) {
    const text::Corpus corpus = text::load_corpus(source.files, text::ChatFormat::from_metadata(metadata));
    const std::size_t max_windows = source.max_tokens > 0 ? std::max<std::size_t>(1, static_cast<std::size_t>(source.max_tokens) / window) : SIZE_MAX;
    out.windows = text::cut_windows(text::encode_documents(corpus, tokenizer), window, tokenizer.eos(), max_windows);
    out.n_from_files = out.windows.size();
    for (const std::string& file : source.files) {
      if (!out.description.empty()) out.description += "+";
      out.description += std::filesystem::path(file).filename().string();
    }
    report(progress, {"calibrate", out.description, out.windows.size() * window, out.windows.size() * window, "tokens"});
  }
  if (source.self_tokens > 0) {
    const std::int64_t n_windows = (source.self_tokens + source.window_tokens - 1) / source.window_tokens;
    const model::SamplingOptions sampling = sampling_options(model.weights().file(), source.window_tokens, seed);
    for (auto& sample : model::sample(model, n_windows, sampling, progress)) out.windows.push_back(std::move(sample));
    out.description += fmt::format("{}self:{}", out.description.empty() ? "" : "+", n_windows * source.window_tokens);
  }
  Hasher hasher;
  for (const auto& tokens : out.windows) hasher.update(tokens.data(), tokens.size() * sizeof(tokens[0]));
  out.hash = hasher.hex();
  return out;
}

}  // namespace spectralquant::pipeline
