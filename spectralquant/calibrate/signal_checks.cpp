#include "spectralquant/calibrate/signal_checks.h"

#include "spectralquant/calibrate/collect.h"
#include "spectralquant/core/error.h"

namespace spectralquant::calibrate {

void require_finite(const Signals& signals, const std::string& place) {
  const auto check = [&](const std::string& name, const torch::Tensor& moment, const char* what) {
    if (!moment.defined() || moment.isfinite().all().item<bool>()) return;
    throw bad_input(name + ": " + what + " overflow: their moment is not finite", place,
                    "look for weights or a text that are out of range; a model in BF16 or F32 "
                    "holds larger values than one in F16");
  };
  for (const auto& [name, signal] : signals.matrices) {
    check(name, signal.h, "its inputs");
    check(name, signal.g, "the gradients of its outputs");
    check(name, signal.c, "the gradients of the embedding");
  }
}

std::uint64_t size_bytes_of_signals(const model::Architecture& architecture, const gguf::File& file,
                                    bool output_moments) {
  std::uint64_t n_values = 0;
  const auto add_input = [&](const std::string& name) {  // H
    const std::uint64_t cols = file.require(name).n_cols();
    n_values += cols * cols;
  };
  const auto add_output = [&](const std::string& name) {  // G
    const std::uint64_t rows = file.require(name).n_rows();
    if (output_moments) n_values += rows * rows;
  };
  const std::int64_t n_blocks = architecture.n_blocks(), n_drafts = architecture.n_draft_blocks();
  for (std::int64_t block = 0; block < n_blocks + n_drafts; ++block) {
    for (const model::Part& part : architecture.parts(block)) {
      for (const model::Stage& stage : part.stages) {
        add_input(stage.front());
        for (const std::string& name : stage)
          if (block < n_blocks) add_output(name);
      }
    }
  }
  add_input(architecture.head_name());
  if (output_moments) {  // C, and the diagonal of the head's G, and frequencies
    add_input(architecture.embedding_name());
    n_values += 2 * static_cast<std::uint64_t>(architecture.vocab_size());
  }
  return n_values * sizeof(float);
}

std::vector<UnreachedColumns> find_unreached_columns(const Signals& signals,
                                                     std::int64_t run_columns) {
  std::vector<UnreachedColumns> found;
  for (const auto& [name, signal] : signals.matrices) {
    if (!signal.h.defined()) continue;
    const torch::Tensor h = signals.diagonal_only ? signal.h : signal.h.diagonal(),
                        rows = h.reshape({-1, h.size(-1)});
    const std::int64_t cols = rows.size(1);
    if (cols % run_columns != 0) continue;  // no matrix of this width becomes one of super-blocks
    const torch::Tensor zero =
        (rows == 0).reshape({rows.size(0), cols / run_columns, run_columns}).all(-1) &
        (rows != 0).any(-1, true);
    const torch::Tensor at = zero.nonzero();
    if (at.size(0) == 0) continue;
    found.push_back({name, at.size(0) * run_columns, rows.numel(),
                     at.select(1, 1).min().item<std::int64_t>() * run_columns});
  }
  return found;
}

}  // namespace spectralquant::calibrate
