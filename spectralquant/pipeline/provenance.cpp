#include "spectralquant/pipeline/provenance.h"

#include <nlohmann/json.hpp>

#include "spectralquant/core/hash.h"
#include "spectralquant/core/version.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/quantize/batched_solver.h"

namespace spectralquant::pipeline {
namespace {

constexpr std::uint32_t kQuantizationVersion = 2;  // GGML_QNT_VERSION in ggml.h

}  // namespace

std::string options_json(const QuantizeOptions& options) {
  nlohmann::ordered_json json;
  json["method"] = name_of(options.method);
  json["type"] = gguf::traits(options.plan.type).name;
  if (!options.signals_file.empty()) json["signals"] = true;
  if (options.method != Method::kPlain) {
    const CalibrationSource& source = options.calibration;
    json["window_tokens"] = source.window_tokens;
    json["self_tokens"] = source.self_tokens;
    json["self_temperature"] = source.self_temperature;
    json["max_tokens"] = source.max_tokens;
    json["device"] = options.device;
  }
  if (!options.start_file.empty()) json["start"] = hash_file(options.start_file);
  if (options.method == Method::kSpectral && options.start_file.empty()) {
    json["moments"] = name_of(options.signals_file.empty() ? options.moments : Moments::kStatic);
    json["drift_correction"] = options.drift_correction;
    json["two_sided"] = options.two_sided;
    const quantize::SolverOptions& solver = options.solver;
    const torch::Device device = options.device == "cpu" ? torch::kCPU : torch::kCUDA;
    json["solver"] = {{"name", quantize::name_of_solver(device)},
                      {"damping", solver.damping},
                      {"output_damping", solver.output_damping},
                      {"live_scale_radius", solver.live_scale_radius},
                      {"feedback", solver.feedback},
                      {"rounds", solver.rounds},
                      {"sweeps", solver.sweeps},
                      {"scale_search", solver.scale_search},
                      {"super_scale_search", solver.super_scale_search}};
  }
  if (options.tune.tokens > 0) {
    const tune::DistillOptions& tune = options.tune;
    json["tune"] = {
        {"tokens", tune.tokens},
        {"batch_tokens", tune.batch_tokens},
        {"rate", tune.rate},
        {"rates",
         {tune.rates.codes, tune.rates.sub_scales, tune.rates.super_scales, tune.rates.free}},
        {"fall", tune.fall},
        {"adam", {tune.adam.beta1, tune.adam.beta2, tune.adam.damping}},
        {"clip", tune.clip},
        {"own_share", tune.own_share},
        {"max_epochs", tune.max_epochs},
        {"by_block", tune.by_block},
        {"bfloat16", tune.bfloat16},
        {"measurements", tune.measurements},
        {"patience", tune.patience}};
  }
  if (options.plan.fallback) json["fallback"] = gguf::traits(*options.plan.fallback).name;
  return json.dump();
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
    metadata.set("spectralquant.calibration", gguf::Value::of_string(calibration.description));
    metadata.set("spectralquant.calibration_hash", gguf::Value::of_string(calibration.hash));
    metadata.set("spectralquant.calibration_tokens",
                 gguf::Value::of_u64(static_cast<std::uint64_t>(calibration.n_tokens)));
  }
  return metadata;
}

}  // namespace spectralquant::pipeline
