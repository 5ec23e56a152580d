#include "spectralquant/calibrate/signal_checks.h"

#include <algorithm>
#include <map>

#include "spectralquant/core/error.h"

namespace spectralquant::calibrate {

void require_finite(const Signals& signals, const std::string& place) {
  const auto check = [&](const gguf::MatrixId& id, const torch::Tensor& moment, const char* what) {
    if (!moment.defined() || moment.isfinite().all().item<bool>()) return;
    throw bad_input(id.text() + ": " + what + " overflow: their moment is not finite", place,
                    "look for weights or a text that are out of range; a model in BF16 or F32 "
                    "holds larger values than one in F16");
  };
  for (const auto& [id, signal] : signals.matrices) {
    check(id, signal.h, "its inputs");
    check(id, signal.g, "the gradients of its outputs");
    check(id, signal.c, "the gradients of the embedding");
  }
}

std::uint64_t size_bytes_of_signals(const model::Architecture& architecture, const gguf::File& file,
                                    bool output_moments) {
  std::uint64_t n_values = 0;
  const auto add_input = [&](const model::MatrixId& id) {  // H
    const std::uint64_t cols = file.require(id.tensor).n_cols();
    n_values += cols * cols;
  };
  const auto add_output = [&](const model::MatrixId& id) {  // G
    const auto rows = static_cast<std::uint64_t>(gguf::require_matrix(file, id).rows());
    if (output_moments) n_values += rows * rows;
  };
  const std::int64_t n_blocks = architecture.n_blocks(), n_drafts = architecture.n_draft_blocks();
  for (std::int64_t block = 0; block < n_blocks + n_drafts; ++block) {
    for (const model::Stage& stage : model::stages_of(architecture, block)) {
      for (const model::Readers& readers : stage) {
        add_input(readers.front());
        for (const model::MatrixId& id : readers)
          if (block < n_blocks) add_output(id);
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

std::vector<IdleExperts> find_idle_experts(const Signals& signals) {
  std::map<std::string, IdleExperts> stacks;
  for (const auto& [id, signal] : signals.matrices) {
    if (signal.n_tokens < 0) continue;
    IdleExperts& stack = stacks[id.tensor];
    stack.name = id.tensor;
    ++stack.n_experts;
    stack.n_idle += signal.n_tokens == 0;
  }
  std::vector<IdleExperts> found;
  for (const auto& [name, stack] : stacks)
    if (stack.n_idle > 0) found.push_back(stack);
  return found;
}

std::vector<UnreachedColumns> find_unreached_columns(const Signals& signals,
                                                     std::int64_t run_columns) {
  std::map<std::string, UnreachedColumns> tensors;
  for (const auto& [id, signal] : signals.matrices) {
    if (!signal.h.defined()) continue;
    const torch::Tensor h = signals.diagonal_only ? signal.h : signal.h.diagonal();
    const std::int64_t cols = h.size(0);
    if (cols % run_columns != 0) continue;  // no matrix of this width becomes one of super-blocks
    UnreachedColumns& unreached = tensors[id.tensor];
    unreached.name = id.tensor;
    unreached.n_cols += cols;
    const torch::Tensor zero = (h == 0).reshape({-1, run_columns}).all(-1) & (h != 0).any(),
                        at = zero.nonzero();
    if (at.size(0) == 0) continue;
    const std::int64_t first = at.min().item<std::int64_t>() * run_columns;
    unreached.first = unreached.n_columns == 0 ? first : std::min(unreached.first, first);
    unreached.n_columns += at.size(0) * run_columns;
  }
  std::vector<UnreachedColumns> found;
  for (const auto& [name, unreached] : tensors)
    if (unreached.n_columns > 0) found.push_back(unreached);
  return found;
}

}  // namespace spectralquant::calibrate
