#include "spectralquant/pipeline/calibration_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/core/warning.h"
#include "spectralquant/pipeline/general_text.h"
#include "spectralquant/text/corpus.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::pipeline {
namespace {

/// Tokens that "self" without a number stands for, and those that go with the general text.
constexpr std::int64_t kSelfTokens = 131072, kSelfTokensBeside = 65536;

/// Tokens of the general text for a column of H, which has to be known in all directions.
constexpr std::int64_t kTokensOfColumn = 256, kLeastTokens = 65536;

/// Weights of a model that writes those in about a minute on two cores.
constexpr std::uint64_t kWritesQuickly = 50'000'000;

/// Far more than fits into memory; sums of it do not overflow.
constexpr std::int64_t kMostSelfTokens = std::int64_t{1} << 40;

std::string hash_of(const calibrate::Windows& windows) {
  Hasher hasher;
  for (const auto& tokens : windows)
    hasher.update(tokens.data(), tokens.size() * sizeof(tokens[0]));
  return hasher.hex();
}

/// source_words() without own samples.
std::vector<std::string> names_of_texts(const CalibrationSource& source) {
  CalibrationSource texts = source;
  texts.self_tokens = 0;
  return source_words(texts);
}

text::Corpus read_texts(const CalibrationSource& source, const text::ChatFormat& chat) {
  text::Corpus corpus;
  if (!source.files.empty()) corpus = text::load_corpus(source.files, chat);
  if (!source.general) return corpus;
  text::Corpus general =
      text::read_corpus(general_text(), "general", chat.is_known() ? chat : text::ChatFormat());
  general.notes.clear();  // what it loses in this model's chat format is nobody's concern
  for (text::Document& document : corpus.documents)
    general.documents.push_back(std::move(document));
  for (std::string& note : corpus.notes) general.notes.push_back(std::move(note));
  return general;
}

}  // namespace

void choose_default_text(CalibrationSource& source, const gguf::File& file,
                         std::string_view device) {
  source.general = true;
  if (source.max_tokens == 0) {
    source.max_tokens = std::max(
        kLeastTokens,
        kTokensOfColumn * file.metadata().int_or(file.architecture() + ".embedding_length", 0));
  }
  if (!device.starts_with("cpu") || file.n_values() <= kWritesQuickly)
    source.self_tokens = kSelfTokensBeside;
}

void add_source(CalibrationSource& source, const std::string& word) {
  if (word == "general") {
    source.general = true;
  } else if (word == "self") {
    source.self_tokens += kSelfTokens;
  } else if (word.starts_with("self:")) {
    std::int64_t n = 0;
    const char* const end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + 5, end, n);
    if (error != std::errc{} || stop != end || n <= 0)
      throw Error(ErrorCode::kBadUsage, "'" + word + "' is not self:N with a number of tokens",
                  "--calibration", "e.g. self:131072");
    if (n > kMostSelfTokens - source.self_tokens)
      throw Error(ErrorCode::kBadUsage, "'" + word + "' is more than a model can write",
                  "--calibration", fmt::format("use at most self:{}", kMostSelfTokens));
    source.self_tokens += n;
  } else {
    source.files.push_back(word);
  }
}

std::vector<std::string> source_words(const CalibrationSource& source) {
  std::vector<std::string> words;
  if (source.general) words.emplace_back("general");
  words.insert(words.end(), source.files.begin(), source.files.end());
  if (source.self_tokens > 0) words.push_back(fmt::format("self:{}", source.self_tokens));
  return words;
}

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
  if (source_words(source).empty()) {
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
  const std::vector<std::string> names = names_of_texts(source);
  if (names.empty()) return out;
  const auto tokenizer = text::Tokenizer::from_metadata(metadata);
  const text::Corpus corpus = read_texts(source, text::ChatFormat::from_metadata(metadata));
  for (const std::string& note : corpus.notes) warn(progress, note);
  const std::size_t max_windows =
      source.max_tokens > 0
          ? std::max<std::size_t>(1, static_cast<std::size_t>(source.max_tokens) / window)
          : SIZE_MAX;
  out.windows =
      text::cut_windows(text::encode_documents(corpus, tokenizer), window, tokenizer.eos(),
                        max_windows, fmt::format("{}", fmt::join(names, ", ")));
  out.n_from_texts = out.windows.size();
  for (const std::string& name : names) {
    if (!out.description.empty()) out.description += "+";
    out.description += valid_utf8(std::filesystem::path(name).filename().string());
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
