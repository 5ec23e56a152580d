#include "spectralquant/pipeline/quantize_report.h"

#include <nlohmann/json.hpp>

#include "spectralquant/core/json_text.h"

namespace spectralquant::pipeline {

std::string report_json(const QuantizeOptions& options, const QuantizeReport& report) {
  nlohmann::json out = {{"input", options.input},
                        {"output", options.output},
                        {"output_bytes", report.output_bytes},
                        {"output_hash", report.output_hash},
                        {"file_bpw", report.file_bpw},
                        {"matrix_bpw", report.matrix_bpw},
                        {"calibration_tokens", report.calibration_tokens},
                        {"strict", report.strict},
                        {"violations", report.violations},
                        {"warnings", report.warnings},
                        {"without_signal", report.without_signal}};
  for (const auto& [phase, seconds] : report.phase_seconds) out["seconds"][phase] = seconds;
  if (report.peak_device_bytes) out["peak_device_bytes"] = *report.peak_device_bytes;
  if (report.tuning) {
    const auto& t = *report.tuning;
    out["tuning"] = {{"steps", t.steps_done},
                     {"stages", t.stages_done},
                     {"tokens", t.n_tokens},
                     {"batch_tokens", t.batch_tokens},
                     {"held_aside_kl", {{"solved", t.held_start}, {"tuned", t.held_end}}},
                     {"kept", t.gained() ? "tuned" : "solved"}};
    for (const auto& stage : t.stages)
      out["tuning"]["curve"].push_back({stage.share, stage.held_before, stage.held_after});
  }
  for (const auto& m : report.matrices) {
    out["matrices"].push_back({{"name", m.id.text()},
                               {"rows", m.rows},
                               {"cols", m.cols},
                               {"relative_error", m.relative_error},
                               {"objective", m.objective},
                               {"plain_objective", m.plain_objective},
                               {"imatrix_objective", m.imatrix_objective},
                               {"seconds", m.seconds}});
    if (m.token_share) out["matrices"].back()["token_share"] = *m.token_share;
  }
  return json_text(out, 2);
}

}  // namespace spectralquant::pipeline
