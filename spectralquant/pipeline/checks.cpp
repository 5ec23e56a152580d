#include "spectralquant/pipeline/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "spectralquant/calibrate/signal_checks.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/warning.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/format/round.h"
#include "spectralquant/gguf/loadable.h"
#include "spectralquant/gguf/mapping.h"
#include "spectralquant/gguf/partial_file.h"
#include "spectralquant/gguf/scan.h"
#include "spectralquant/pipeline/encode.h"
#include "spectralquant/pipeline/matrix_writer.h"
#include "spectralquant/pipeline/option_table.h"
#include "spectralquant/text/corpus.h"

namespace spectralquant::pipeline {

namespace fs = std::filesystem;

namespace {

/// No format has trouble with smaller weights. The narrowest limit: mins of Q4_K and Q5_K end at
/// 63 · 65,504 = 4.1 · 10⁶.
constexpr float kHarmlessWeight = 1 << 20;

/// Rounds every row as llama.cpp does, and keeps nothing.
void require_plain_rounding(const gguf::Tensor& matrix, gguf::Type type, int n_threads,
                            const std::string& file_path) {
  constexpr std::uint64_t kPieceValues = std::uint64_t{1} << 22;
  const std::uint64_t cols = matrix.n_cols(), rows = matrix.n_rows(),
                      step = std::max<std::uint64_t>(1, kPieceValues / cols);
  std::vector<float> values;
  for (std::uint64_t row = 0; row < rows; row += step) {
    const std::uint64_t n = std::min(step, rows - row);
    values.resize(n * cols);
    gguf::decode(matrix, row, n, values.data());
    const std::vector<std::byte> bytes =
        format::round_like_llama(format::grid_of(type), values.data(), static_cast<std::int64_t>(n),
                                 static_cast<std::int64_t>(cols), nullptr, n_threads)
            .to_bytes();
    require_finite_rows(matrix, row,
                        {matrix.name, type, 2, {cols, n, 1, 1}, bytes.data(), bytes.size()},
                        file_path);
  }
}

}  // namespace

bool has_calibration_text(const CalibrationSource& source) {
  return source.general || !source.files.empty() || source.self_tokens > 0;
}

void check_options(const QuantizeOptions& options) {
  const auto refuse = [](std::string problem, std::string fix) {
    throw Error(ErrorCode::kBadUsage, std::move(problem), {}, std::move(fix));
  };
  check_ranges(options);
  if (options.input.empty()) refuse("no input file", "name the GGUF file to quantize");
  const CalibrationSource& source = options.calibration;
  const bool has_text = has_calibration_text(source), has_signals = !options.signals_file.empty();
  if (options.method != Method::kPlain) {
    if (!has_text && !has_signals)
      refuse("this method needs calibration and none is given",
             "give text (--calibration FILE), own samples (--calibration self) or signals");
    if (has_text && has_signals)
      refuse("calibration text and a signals file are both given", "give one of them");
  }
  const tune::DistillOptions& tune = options.tune;
  if (tune.tokens == 0) return;
  if (options.method == Method::kPlain || !has_text)
    refuse("tuning needs calibration text",
           "give text (--calibration FILE) or own samples (--calibration self), and a method that "
           "uses it");
}

void check_input(const gguf::File& file, const quantize::Plan& plan) {
  gguf::require_loadable(file);
  for (const auto& planned : plan.tensors) {
    if (planned.action == quantize::Action::kFallback)
      encode_tensor(*planned.source, planned.type, file.path(), [](auto, const auto&) {});
  }
}

void check_output(const std::string& output, const std::vector<std::string>& inputs, bool overwrite,
                  std::uint64_t output_bytes) {
  gguf::PartialFile::require_writable(output, overwrite, inputs);
  std::error_code ignored;
  const fs::space_info space = fs::space(gguf::folder_of(output), ignored);
  if (!ignored && space.available < output_bytes) {
    throw bad_input(fmt::format("the disk has {} MB free; the output, and what is kept beside it "
                                "until it is done, need {} MB",
                                space.available / 1000000, output_bytes / 1000000 + 1),
                    output, "free some space, or write elsewhere");
  }
}

std::vector<std::string> input_paths(const gguf::File& model, const QuantizeOptions& options) {
  std::vector<std::string> paths = model.paths();
  if (options.method == Method::kPlain) return paths;
  if (!options.signals_file.empty()) paths.push_back(options.signals_file);
  for (std::string& path : text::expand_patterns(options.calibration.files))
    paths.push_back(std::move(path));
  return paths;
}

void check_values(const gguf::File& file, const quantize::Plan& plan,
                  const QuantizeOptions& options, const Progress& progress) {
  if (const auto foreign = gguf::find_foreign_tensors(file); !foreign.empty())
    warn(
        progress,
        fmt::format("llama.cpp does not know {} of the tensors, first {}, and refuses such a file; "
                    "programs that know them load it",
                    foreign.size(), foreign.front()));
  const auto n_tensors = plan.tensors.size();
  for (std::size_t i = 0; i < n_tensors; ++i) {
    const auto& [tensor, action, type] = plan.tensors[i];
    report(progress, {"open", tensor->name, i, n_tensors, "tensors"});
    const gguf::ValueScan scan = gguf::scan_values(*tensor, options.n_threads, file.path());
    if (scan.n_not_finite > 0) gguf::require_finite(*tensor, file.path());
    const bool matrix = action == quantize::Action::kSolve || action == quantize::Action::kFallback;
    if (matrix && gguf::is_suspiciously_zero(*tensor, scan))
      warn(progress, gguf::zeros_text(*tensor, scan) + ": is the file complete?");
    if (options.method == Method::kPlain && action == quantize::Action::kSolve &&
        scan.largest > kHarmlessWeight)
      require_plain_rounding(*tensor, type, options.n_threads, file.path());
    gguf::leave_memory(*tensor, 0, tensor->n_rows());
  }
}

void warn_about_importance(const calibrate::Signals& signals, Method method, gguf::Type type,
                           const Progress& progress) {
  for (const std::string& name : calibrate::without_importance(signals))
    warn(progress,
         fmt::format("{} has no importance: no input of the calibration reaches it; {}", name,
                     method == Method::kImatrix ? "its columns all count alike"
                                                : "its errors have no measured cost"));
  // The solver begins with llama.cpp's rounding.
  const int run = format::columns_lost_without_importance(format::grid_of(type));
  if (run == 0) return;
  for (const auto& [name, n_columns, n_cols, first] :
       calibrate::find_unreached_columns(signals, run))
    warn(progress, fmt::format("{} {} zero in {} of its {} columns, from column {} on: they have "
                               "no importance, in whole runs of {}",
                               name, method == Method::kImatrix ? "becomes" : "may become",
                               n_columns, n_cols, first, run));
}

void warn_about_idle_experts(const std::vector<calibrate::IdleExperts>& stacks,
                             const Progress& progress) {
  for (const auto& [name, n_idle, n_experts] : stacks)
    warn(progress,
         fmt::format("{} of the {} experts of {} get no token of the calibration: what is "
                     "known of the others has to do for them",
                     n_idle, n_experts, name));
}

void require_all_finite(const gguf::File& written) {
  for (const gguf::Tensor& tensor : written.tensors()) {
    const gguf::ValueScan scan = gguf::scan_values(tensor, 0, written.path());
    if (scan.n_not_finite == 0) continue;
    throw Error(ErrorCode::kFailed, "the output is not kept: " + not_finite_text(tensor, scan),
                written.path(), "please report this as a bug");
  }
}

}  // namespace spectralquant::pipeline
