#include "spectralquant/gguf/loadable.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/load_check.h"

namespace spectralquant::gguf {
namespace {

using enum ValueType;

// Keys that llama.cpp reads for every architecture, below "ARCH.".
constexpr std::string_view kNumbers[] = {"embedding_length_out",
                                         "pooling_type",
                                         "classifier.pooling_type",
                                         "nextn_predict_layers",
                                         "expert_count",
                                         "expert_group_count",
                                         "expert_group_used_count",
                                         "rope.scaling.original_context_length",
                                         "rope.dimension_count",
                                         "rope.dimension_count_swa",
                                         "attention.key_length",
                                         "attention.value_length",
                                         "attention.key_length_swa",
                                         "attention.value_length_swa"};
constexpr std::string_view kReals[] = {"rope.freq_base", "rope.scaling.factor",
                                       "rope.scaling.attn_factor", "rope.scaling.alpha"};
constexpr std::string_view kFlags[] = {"attention.causal", "rope.scaling.finetuned"};
constexpr std::string_view kTexts[] = {"classifier.activation", "rope.section_order"};
constexpr std::string_view kRopeScalings[] = {"none", "linear", "yarn", "longrope"};

/// Optional scalars; some architectures keep arrays under the same names.
template <typename Keys>
void check_scalars(LoadCheck& check, const std::string& prefix, const Keys& keys, ValueType type) {
  for (const std::string_view key : keys) {
    const std::string name = prefix + std::string(key);
    const Value* value = check.file().metadata().find(name);
    if (value && !value->is_array()) check.scalar(name, type);
  }
}

void check_hyper_parameters(LoadCheck& check) {
  const std::string prefix = check.file().architecture() + ".";
  check.u32(prefix + "context_length", 0, LoadCheck::kRequired);
  check.u32(prefix + "embedding_length", 0, LoadCheck::kRequired);
  if (const Value* blocks = check.scalar(prefix + "block_count", kUint32, LoadCheck::kRequired)) {
    const std::int64_t n = *blocks->as_int();
    if (n < 1 || n > kMaxBlocks)
      check.fail(fmt::format("metadata key {}block_count is {}; 1 to {} are allowed", prefix, n,
                             kMaxBlocks));
    for (const char* key :
         {"feed_forward_length", "attention.head_count", "attention.head_count_kv"})
      check.per_block(prefix + key, static_cast<std::uint64_t>(n));
  }
  check_scalars(check, prefix, kNumbers, kUint32);
  check_scalars(check, prefix, kReals, kFloat32);
  check_scalars(check, prefix, kFlags, kBool);
  for (const std::string_view key : kTexts) check.scalar(prefix + std::string(key), kString);
  if (const Value* labels = check.file().metadata().find(prefix + "classifier.output_labels");
      labels && labels->is_array())  // anything else is not looked at
    check.array(prefix + "classifier.output_labels", {kString});
  if (!check.file().metadata().find(prefix + "rope.scaling.factor"))  // its old name
    check_scalars(check, prefix, std::initializer_list<std::string_view>{"rope.scale_linear"},
                  kFloat32);
  if (const Value* scaling = check.scalar(prefix + "rope.scaling.type", kString);
      scaling && std::ranges::find(kRopeScalings, *scaling->as_string()) == std::end(kRopeScalings))
    check.fail(
        fmt::format("metadata key {}rope.scaling.type is \"{}\"; none, linear, yarn and "
                    "longrope are known",
                    prefix, *scaling->as_string()));

  const Value* used = check.file().metadata().find(prefix + "expert_used_count");
  const Value* experts = check.file().metadata().find(prefix + "expert_count");
  if (used && used->is_array()) return;  // a number for each block
  const std::int64_t n_used = check.u32(prefix + "expert_used_count", 0),
                     n_experts = experts ? experts->as_int().value_or(0) : 0;
  if (n_used > n_experts || (n_experts > 0 && n_used == 0))
    check.fail(
        fmt::format("{} of {} experts are used ({}expert_used_count)", n_used, n_experts, prefix));
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text;
  for (const std::uint64_t n : shape) text += fmt::format("{}{}", text.empty() ? "" : ", ", n);
  return "[" + text + "]";
}

bool same_shape(const Tensor& tensor, const std::vector<std::uint64_t>& shape) {
  for (std::size_t d = 0; d < tensor.shape.size(); ++d)
    if (tensor.shape[d] != (d < shape.size() ? shape[d] : 1)) return false;
  return true;
}

/// By name; empty for an architecture that is not known here, or hyper-parameters that do not tell.
ExpectedTensors expected_tensors(LoadCheck& check) {
  const std::string_view architecture = check.file().architecture();
  if (architecture == "qwen35") return expect_qwen35(check);
  if (architecture == "llama" || architecture == "qwen2" || architecture == "qwen3" ||
      architecture == "qwen3moe")
    return expect_dense(check);
  return {};
}

/// A tensor of a block that the file says it does not have.
void check_last_block(LoadCheck& check) {
  const std::string key = fmt::format("{}.block_count", check.file().architecture());
  const std::int64_t n = *check.file().metadata().find(key)->as_int();
  for (const Tensor& tensor : check.file().tensors()) {
    constexpr std::string_view kPrefix = "blk.";
    if (!tensor.name.starts_with(kPrefix)) continue;
    const char* first = tensor.name.data() + kPrefix.size();
    std::int64_t block = 0;
    if (std::from_chars(first, tensor.name.data() + tensor.name.size(), block).ptr == first ||
        block < n)
      continue;
    check.fail(fmt::format("tensor {} lies behind the last block: {} is {}", tensor.name, key, n));
    return;
  }
}

void check_tensors(LoadCheck& check) {
  const ExpectedTensors known = expected_tensors(check);
  if (!known.empty()) check_last_block(check);
  for (const auto& [name, expected] : known) {
    const Tensor* tensor = check.file().find(name);
    if (!tensor) {
      if (expected.required) check.fail(fmt::format("tensor {} is missing", name));
      continue;
    }
    if (!same_shape(*tensor, expected.shape))
      check.fail(fmt::format("{} has shape {}; the hyper-parameters ask for {}", name,
                             tensor->shape_text(), shape_text(expected.shape)));
    if (!traits(tensor->type).decodable)
      check.fail(fmt::format("{} is {}, which llama.cpp does not compute with", name,
                             traits(tensor->type).name));
  }
}

}  // namespace

void LoadCheck::fail(std::string problem, std::string fix) {
  if (fix.empty()) fix = "convert the model again with a current converter";
  problems_.push_back({std::move(problem), std::move(fix)});
}

const Value* LoadCheck::scalar(const std::string& key, ValueType type, Need need) {
  const Value* value = file_.metadata().find(key);
  if (!value) {
    if (need == kRequired) fail(fmt::format("metadata key {} is missing", key));
    return nullptr;
  }
  if (value->type() == type) return value;
  fail(fmt::format("metadata key {} is {} of type {}; llama.cpp reads type {} only", key,
                   value->to_display(), value_type_name(value->type()), value_type_name(type)));
  return nullptr;
}

const Value* LoadCheck::array(const std::string& key, std::initializer_list<ValueType> elements,
                              Need need) {
  const Value* value = file_.metadata().find(key);
  if (!value) {
    if (need == kRequired) fail(fmt::format("metadata key {} is missing", key));
    return nullptr;
  }
  if (value->is_array() && std::ranges::find(elements, value->element_type()) != elements.end())
    return value;
  std::string wanted;
  for (const ValueType type : elements)
    wanted += fmt::format("{}{}", wanted.empty() ? "" : " or ", value_type_name(type));
  fail(fmt::format("metadata key {} is {} {}; llama.cpp reads an array of {} only", key,
                   value->is_array() ? "an array of" : "of type",
                   value_type_name(value->element_type()), wanted));
  return nullptr;
}

std::int64_t LoadCheck::u32(const std::string& key, std::int64_t fallback, Need need) {
  const Value* value = scalar(key, kUint32, need);
  return value ? *value->as_int() : fallback;
}

std::vector<std::int64_t> LoadCheck::per_block(const std::string& key, std::uint64_t n) {
  n = std::min<std::uint64_t>(n, kMaxBlocks);
  std::vector<std::int64_t> out(n, 0);
  const Value* value = file_.metadata().find(key);
  if (!value) return out;
  if (!value->is_array()) {
    std::ranges::fill(out, u32(key, 0));
    return out;
  }
  value = array(key, {kUint32, kInt32, kBool});
  if (!value) return out;
  if (value->array_size() != n) {
    fail(fmt::format("metadata key {} has {} elements, not one for each of {} blocks", key,
                     value->array_size(), n));
    return out;
  }
  const std::vector<double> numbers = value->numbers();
  for (std::uint64_t i = 0; i < n; ++i) out[i] = static_cast<std::int64_t>(numbers[i]);
  return out;
}

void LoadCheck::epsilon(const std::string& key) {
  const Value* value = scalar(key, kFloat32, kRequired);
  if (value && !(*value->as_number() >= 0))
    fail(fmt::format("metadata key {} is {}, not 0 or more", key, value->to_display()));
}

std::vector<LoadProblem> find_load_problems(const File& file) {
  LoadCheck check(file);
  check.scalar("general.architecture", kString, LoadCheck::kRequired);
  if (!check.problems().empty()) return check.problems();
  check.scalar("general.name", kString);
  if (file.architecture() == "clip") return check.problems();  // a projector has no more
  check_hyper_parameters(check);
  check_vocabulary(check);
  if (check.problems().empty()) check_tensors(check);
  return check.problems();
}

std::vector<std::string> find_foreign_tensors(const File& file) {
  std::vector<std::string> names;
  LoadCheck check(file);
  const ExpectedTensors known = expected_tensors(check);
  if (known.empty()) return names;
  for (const Tensor& tensor : file.tensors()) {
    // scales of NVFP4 weights lie beside them
    const bool is_scale = tensor.name.ends_with(".scale") || tensor.name.ends_with(".input_scale");
    if (!known.contains(tensor.name) && !is_scale) names.push_back(tensor.name);
  }
  return names;
}

std::vector<std::string> load_refusals(const File& file) {
  std::vector<std::string> texts;
  if (file.architecture().empty()) return texts;
  for (const LoadProblem& problem : find_load_problems(file)) texts.push_back(problem.problem);
  const auto foreign = find_foreign_tensors(file);
  if (texts.empty() && !foreign.empty())
    texts.push_back(fmt::format("{} {} unknown to it, first {}", foreign.size(),
                                foreign.size() == 1 ? "tensor is" : "tensors are",
                                foreign.front()));
  return texts;
}

void require_loadable(const File& file) {
  const std::vector<LoadProblem> problems = find_load_problems(file);
  if (problems.empty()) return;
  const std::size_t n_more = problems.size() - 1;
  throw bad_input(problems.front().problem +
                      (n_more > 0 ? fmt::format("; and {} more such problems", n_more) : ""),
                  file.path() + ": llama.cpp would not load it", problems.front().fix);
}

}  // namespace spectralquant::gguf
