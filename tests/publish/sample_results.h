#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "spectralquant/core/error.h"
#include "spectralquant/publish/source.h"

namespace spectralquant::publish {

using nlohmann::json;

inline json interval(double mean) {
  return {{"mean", mean}, {"low", 0.9 * mean}, {"high", 1.1 * mean}};
}

inline json score(double kld) {
  return {{"tokens", 1000},
          {"loss", interval(3 + kld)},
          {"kld", interval(kld)},
          {"kld_p90", 2 * kld},
          {"kld_p99", 8 * kld},
          {"kld_max", 40 * kld},
          {"same_top", interval(0.9)},
          {"rms_delta_p", 0.05},
          {"gap_recovery", interval(0.5)}};
}

inline json model(const std::string& name, double kld, bool reference = false) {
  return {{"name", name},
          {"path", "/home/someone/models/" + name + ".gguf"},
          {"hash", "00112233445566778899aabbccddeeff"},
          {"file_bpw", 4.57},
          {"matrix_bpw", 4.5},
          {"mebibytes", 2.61},
          {"strict", !reference},
          {"reference", reference},
          {"scores", {{"held", score(kld)}}}};
}

/// What eval prints, as far as every report needs it.
inline json sample_results() {
  return {{"format", 1},
          {"baseline", "plain"},
          {"suites",
           {{{"name", "held"},
             {"file", "/home/someone/held.jsonl"},
             {"protocol", "documents"},
             {"tokens", 1000},
             {"hash", "ab"}}}},
          {"models", {model("original", 0, true), model("plain", 0.06), model("ours", 0.02)}}};
}

inline Source source(const json& results) { return {results.dump(), "results.json"}; }

/// The Error that `job` throws.
template <typename Job>
Error error_of(Job job) {
  try {
    job();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error was thrown";
  return Error(ErrorCode::kFailed, "");
}

}  // namespace spectralquant::publish
