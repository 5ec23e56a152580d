#include "spectralquant/pipeline/provenance.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <variant>

#include "spectralquant/core/json_text.h"
#include "spectralquant/core/version.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/pipeline/option_table.h"

namespace spectralquant::pipeline {
namespace {

constexpr std::uint32_t kQuantizationVersion = 2;  // GGML_QNT_VERSION in ggml.h

}  // namespace

std::string options_json(const QuantizeOptions& options) {
  nlohmann::ordered_json json;
  for (const Option& option : option_table()) {
    if (option.recorded != Recorded::kInOptions || !option.matters(options)) continue;
    const OptionValue value = option.get(options);
    if (option.is_path) {
      std::vector<std::string> names = option_words(value);
      for (std::string& name : names) name = std::filesystem::path(name).filename().string();
      if (names.empty() || names.front().empty()) continue;
      if (std::holds_alternative<std::string>(value))
        json[option.key] = names.front();
      else
        json[option.key] = names;
    } else {
      std::visit([&](const auto& held) { json[option.key] = held; }, value);
    }
  }
  return json_text(json);
}

gguf::Metadata output_metadata(const gguf::File& input, const QuantizeOptions& options,
                               const CalibrationFacts& calibration, int n_threads) {
  gguf::Metadata metadata;
  metadata.place = options.output;
  for (const auto& [key, value] : input.metadata().items()) {
    // the Writer leaves split.* out
    if (!key.starts_with("spectralquant.")) metadata.set(key, value);
  }
  metadata.set("general.file_type",
               gguf::Value::of_u32(format::grid_of(options.plan.type).file_type));
  metadata.set("general.quantization_version", gguf::Value::of_u32(kQuantizationVersion));
  metadata.set("spectralquant.version", gguf::Value::of_string(kVersion));
  metadata.set("spectralquant.method", gguf::Value::of_string(name_of(options.method)));
  metadata.set("spectralquant.options", gguf::Value::of_string(options_json(options)));
  metadata.set("spectralquant.seed", gguf::Value::of_u64(options.seed));
  metadata.set("spectralquant.threads", gguf::Value::of_u32(static_cast<std::uint32_t>(n_threads)));
  if (options.group.size() > 1)
    metadata.set("spectralquant.processes",
                 gguf::Value::of_u32(static_cast<std::uint32_t>(options.group.size())));
  metadata.set("spectralquant.model_hash", gguf::Value::of_string(input.hash()));
  if (options.method != Method::kPlain) {
    metadata.set("spectralquant.calibration",
                 gguf::Value::of_string(valid_utf8(calibration.description)));
    metadata.set("spectralquant.calibration_hash", gguf::Value::of_string(calibration.hash));
    metadata.set("spectralquant.calibration_tokens",
                 gguf::Value::of_u64(static_cast<std::uint64_t>(calibration.n_tokens)));
  }
  return metadata;
}

}  // namespace spectralquant::pipeline
