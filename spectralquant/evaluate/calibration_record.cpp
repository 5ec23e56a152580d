#include "spectralquant/evaluate/calibration_record.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"

namespace spectralquant::evaluate {
namespace {

using How = CalibrationRecord::How;

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

/// "a.jsonl+b.txt+self:65536" → its parts.
std::vector<std::string> parts_of(const std::string& description) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= description.size();) {
    const std::size_t end = std::min(description.find('+', begin), description.size());
    parts.push_back(description.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// The given texts of these names, in this order; none if one is missing.
std::vector<std::size_t> texts_named(const std::vector<std::string>& names,
                                     const std::vector<CalibrationText>& texts) {
  std::vector<std::size_t> found;
  for (const auto& name : names) {
    const auto at = std::find_if(texts.begin(), texts.end(),
                                 [&](const auto& t) { return file_name(t.pattern) == name; });
    if (at == texts.end()) return {};
    found.push_back(static_cast<std::size_t>(at - texts.begin()));
  }
  return found;
}

/// What quantize hashes: the windows of tokens of the texts, one after the other.
std::string hash_of(const std::vector<std::size_t>& chosen,
                    const std::vector<CalibrationText>& texts, std::size_t window_tokens,
                    std::size_t max_tokens, const text::Tokenizer& tokenizer) try {
  text::Corpus corpus;
  for (auto t : chosen)
    corpus.documents.insert(corpus.documents.end(), texts[t].corpus.documents.begin(),
                            texts[t].corpus.documents.end());
  const std::size_t max_windows =
      max_tokens > 0 ? std::max<std::size_t>(1, max_tokens / window_tokens) : SIZE_MAX;
  Hasher hasher;
  for (const auto& window : text::cut_windows(text::encode_documents(corpus, tokenizer),
                                              window_tokens, tokenizer.eos(), max_windows))
    hasher.update(window.data(), window.size() * sizeof(window[0]));
  return hasher.hex();
} catch (const Error&) {
  return {};  // shorter than one window: not what was used
}

/// Tries what the names say, then every text alone, then all together.
void recognise(CalibrationRecord& record, const std::vector<std::string>& names,
               const nlohmann::json& options, const std::vector<CalibrationText>& texts,
               const text::Tokenizer& tokenizer) {
  const auto named = names.empty() ? std::vector<std::size_t>{} : texts_named(names, texts);
  const auto count = [&](const char* key) {
    return options.is_object() && options.contains(key) && options[key].is_number_unsigned()
               ? options[key].get<std::size_t>()
               : std::size_t{0};
  };
  const auto window = count("window_tokens"), limit = count("max_tokens");
  if (record.how == How::kText && window > 0) {
    std::vector<std::vector<std::size_t>> tries;
    if (!named.empty()) tries.push_back(named);
    for (std::size_t t = 0; t < texts.size(); ++t) tries.push_back({t});
    std::vector<std::size_t> all(texts.size());
    std::iota(all.begin(), all.end(), 0);
    if (all.size() > 1) tries.push_back(all);
    for (const auto& chosen : tries) {
      if (hash_of(chosen, texts, window, limit, tokenizer) != record.hash) continue;
      record.texts = chosen;
      record.matched = "hash";
      return;
    }
  }
  if (named.empty()) return;
  record.texts = named;
  record.matched = "name";
}

}  // namespace

std::string_view name_of(How how) {
  switch (how) {
    case How::kUnknown:
      return "unknown";
    case How::kNone:
      return "none";
    case How::kText:
      return "text";
    case How::kSelf:
      return "self";
    case How::kTextAndSelf:
      return "text and self";
  }
  return "";
}

CalibrationRecord read_calibration(const gguf::Metadata& metadata,
                                   const std::vector<CalibrationText>& texts,
                                   const text::Tokenizer& tokenizer) {
  CalibrationRecord record;
  const auto text_of = [&](const char* key) {
    const auto* value = metadata.find(key);
    return std::string(value ? value->as_string().value_or("") : "");
  };
  const auto options =
      nlohmann::json::parse(text_of("spectralquant.options"), nullptr, /*allow_exceptions=*/false);
  if (options.is_object()) {
    record.description = text_of("spectralquant.calibration");
    record.hash = text_of("spectralquant.calibration_hash");
    if (const auto* n = metadata.find("spectralquant.calibration_tokens"))
      record.n_tokens = n->as_int().value_or(0);
    std::vector<std::string> names =
        record.description.empty() ? std::vector<std::string>{} : parts_of(record.description);
    const bool has_own =
        std::erase_if(names, [](const std::string& n) { return n.starts_with("self:"); }) > 0;
    record.how = names.empty() ? (has_own ? How::kSelf : How::kNone)
                               : (has_own ? How::kTextAndSelf : How::kText);
    recognise(record, names, options, texts, tokenizer);
    return record;
  }
  if (const auto dataset = text_of("quantize.imatrix.dataset"); !dataset.empty()) {
    record.how = How::kText;
    record.description = file_name(dataset);
    recognise(record, {record.description}, {}, texts, tokenizer);
    return record;
  }
  record.texts.resize(texts.size());
  std::iota(record.texts.begin(), record.texts.end(), 0);
  if (!texts.empty()) record.matched = "assumed";
  return record;
}

}  // namespace spectralquant::evaluate
