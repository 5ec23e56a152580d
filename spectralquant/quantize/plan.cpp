#include "spectralquant/quantize/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "spectralquant/core/error.h"
#include "spectralquant/format/formats.h"
#include "spectralquant/gguf/strict.h"

namespace spectralquant::quantize {
namespace {

using gguf::Type;

bool is_float(Type type) { return type == Type::F32 || type == Type::F16 || type == Type::BF16; }

std::uint64_t block_values(Type type) { return gguf::traits(type).block_values; }

std::string place_of(const gguf::File& file, const gguf::Tensor& tensor) {
  return fmt::format("{}, tensor {} of {}: {} {} {}", file.path(),
                     &tensor - file.tensors().data() + 1, file.tensors().size(), tensor.name,
                     gguf::traits(tensor.type).name, tensor.shape_text());
}

void check_fallback(Type fallback) {
  if (is_float(fallback) || fallback == Type::Q8_0) return;
  throw Error(ErrorCode::kBadUsage,
              fmt::format("{} cannot be the fallback type", gguf::traits(fallback).name), {},
              "choose Q8_0, F16, BF16 or F32");
}

/// Every weight has to come from the original: rounding what was rounded before adds both errors
/// up.
void refuse_quantized(const gguf::File& file) {
  for (const gguf::Tensor& tensor : file.tensors()) {
    if (block_values(tensor.type) == 1) continue;
    throw bad_input(fmt::format("{} is quantized already: {} is {}", file.path(), tensor.name,
                                gguf::traits(tensor.type).name),
                    place_of(file, tensor), "give the BF16, F16 or F32 original");
  }
}

PlannedTensor plan_matrix(const gguf::File& file, const gguf::Tensor& tensor,
                          const PlanOptions& options) {
  if (!is_float(tensor.type)) {
    throw bad_input(fmt::format("{} is {}, not a floating-point type that can be quantized",
                                tensor.name, gguf::traits(tensor.type).name),
                    place_of(file, tensor), "convert the model to BF16, F16 or F32");
  }
  if (tensor.n_cols() % block_values(options.type) == 0)
    return {&tensor, Action::kSolve, options.type};
  if (options.fallback && tensor.n_cols() % block_values(*options.fallback) == 0)
    return {&tensor, Action::kFallback, *options.fallback};
  return {&tensor, Action::kFallback, options.type};  // impossible; reported once all are known
}

PlannedTensor plan_other(const gguf::File& file, const gguf::Tensor& tensor) {
  if (tensor.type == Type::F64)
    throw bad_input(fmt::format("{} is F64, which llama.cpp does not compute with", tensor.name),
                    place_of(file, tensor), "convert the model to BF16, F16 or F32");
  if (tensor.type == Type::F16 || tensor.type == Type::BF16)
    return {&tensor, Action::kToF32, Type::F32};
  return {&tensor, Action::kCopy, tensor.type};  // F32, and integer tables as they are
}

void refuse_impossible(const gguf::File& file, const std::vector<PlannedTensor>& tensors,
                       const PlanOptions& options) {
  auto impossible = [&](const PlannedTensor& t) {
    return t.action == Action::kFallback && t.type == options.type;
  };
  const auto first = std::find_if(tensors.begin(), tensors.end(), impossible);
  if (first == tensors.end()) return;
  const auto n = std::count_if(first, tensors.end(), impossible);
  const gguf::Tensor& tensor = *first->source;
  const auto type = gguf::traits(options.type).name;
  std::string problem = fmt::format("{} has {} columns; {} needs a multiple of {}", tensor.name,
                                    tensor.n_cols(), type, block_values(options.type));
  if (options.fallback)
    problem += fmt::format(", the fallback {} one of {}", gguf::traits(*options.fallback).name,
                           block_values(*options.fallback));
  if (n > 1) problem += fmt::format("; {} more of the matrices cannot be {} either", n - 1, type);
  const bool can_be_q8_0 = std::all_of(first, tensors.end(), [&](const PlannedTensor& t) {
    return !impossible(t) || t.source->n_cols() % 32 == 0;
  });
  throw bad_input(problem, place_of(file, tensor),
                  fmt::format("allow another type for such matrices, e.g. --fallback {}",
                              can_be_q8_0 ? "q8_0" : "bf16"));
}

}  // namespace

Plan make_plan(const gguf::File& file, const PlanOptions& options) {
  format::grid_of(options.type);  // refuses other types
  if (options.fallback) check_fallback(*options.fallback);
  refuse_quantized(file);

  const std::string architecture = file.architecture();
  Plan plan;
  std::uint64_t n_values = 0, n_matrix_values = 0, matrix_bytes = 0;
  for (const gguf::Tensor& tensor : file.tensors()) {
    const bool matrix = gguf::is_matrix_to_quantize(architecture, tensor);
    const PlannedTensor planned =
        matrix ? plan_matrix(file, tensor, options) : plan_other(file, tensor);
    plan.tensors.push_back(planned);

    const std::uint64_t bytes =
        tensor.n_values() / block_values(planned.type) * gguf::traits(planned.type).block_bytes;
    plan.output_bytes += bytes;
    n_values += tensor.n_values();
    if (!matrix) continue;
    matrix_bytes += bytes;
    n_matrix_values += tensor.n_values();
    if (planned.action == Action::kSolve)
      plan.largest_cols = std::max(plan.largest_cols, static_cast<std::int64_t>(tensor.n_cols()));
  }
  refuse_impossible(file, plan.tensors, options);
  if (n_matrix_values == 0) {
    throw bad_input(
        fmt::format("{} has no matrix to quantize", file.path()),
        fmt::format("architecture \"{}\", {} tensors", architecture, file.tensors().size()),
        "give a language model; adapters, vocabularies and projectors are not quantized");
  }
  plan.file_bpw = 8.0 * static_cast<double>(plan.output_bytes) / static_cast<double>(n_values);
  plan.matrix_bpw = 8.0 * static_cast<double>(matrix_bytes) / static_cast<double>(n_matrix_values);
  return plan;
}

}  // namespace spectralquant::quantize
