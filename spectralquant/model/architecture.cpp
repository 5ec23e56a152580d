#include "spectralquant/model/architecture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/model/layers.h"

namespace spectralquant::model {
namespace {

struct Entry {
  std::string_view name;  ///< general.architecture
  std::unique_ptr<Architecture> (*make)(const gguf::File&);
};

// One line per architecture.
constexpr std::array kArchitectures{
    Entry{"llama", make_dense},    Entry{"qwen2", make_dense},   Entry{"qwen3", make_dense},
    Entry{"qwen3moe", make_dense}, Entry{"qwen35", make_qwen35},
};

/// What can be done for a model that llama.cpp runs and this program does not.
constexpr const char* kRoundOnly =
    "round it without running it: --method plain, or --method imatrix with --signals of "
    "llama-imatrix";

}  // namespace

std::unique_ptr<Architecture> make_architecture(const gguf::File& file) {
  const std::string name = file.architecture();
  for (const Entry& entry : kArchitectures) {
    if (entry.name == name) return entry.make(file);
  }
  std::vector<std::string_view> supported;
  for (const Entry& entry : kArchitectures) supported.push_back(entry.name);
  throw bad_input(name.empty() ? std::string("the file names no architecture")
                               : fmt::format("architecture {} is not supported", name),
                  fmt::format("{}, general.architecture", file.path()),
                  fmt::format("supported: {}", fmt::join(supported, ", ")));
}

bool is_supported(const gguf::File& file) {
  return std::any_of(kArchitectures.begin(), kArchitectures.end(),
                     [&](const Entry& entry) { return entry.name == file.architecture(); });
}

std::int64_t HyperParameters::count(std::string_view key) const {
  const auto value = file_.metadata().require_int(name(key));
  require(value >= 1, key, "which must be at least 1");
  return value;
}

std::int64_t HyperParameters::count_or(std::string_view key, std::int64_t fallback) const {
  if (find(key) == nullptr) return fallback;
  const auto value = file_.metadata().require_int(name(key));
  require(value >= 0, key, "which must not be negative");
  return value;
}

std::int64_t HyperParameters::count_of_blocks(std::string_view key) const {
  const auto* value = find(key);
  if (!value || !value->is_array()) return count(key);
  const auto counts = value->numbers();
  require(!counts.empty() && counts.front() >= 1, key, "which must be at least 1");
  require_supported(
      std::all_of(counts.begin(), counts.end(), [&](double n) { return n == counts.front(); }), key,
      "which differs from block to block");
  return static_cast<std::int64_t>(counts.front());
}

std::int64_t HyperParameters::count_of_blocks_or(std::string_view key,
                                                 std::int64_t fallback) const {
  return find(key) ? count_of_blocks(key) : fallback;
}

double HyperParameters::number(std::string_view key) const {
  return file_.metadata().require_number(name(key));
}

double HyperParameters::number_or(std::string_view key, double fallback) const {
  return find(key) ? number(key) : fallback;
}

const gguf::Value* HyperParameters::find(std::string_view key) const {
  return file_.metadata().find(name(key));
}

void HyperParameters::require(bool ok, std::string_view key, const std::string& why) const {
  if (ok) return;
  const auto* value = find(key);
  throw bad_input(
      fmt::format("{} is {}, {}", name(key), value ? value->to_display() : "missing", why),
      file_.path(),
      "the file is damaged or was converted wrongly: convert the original checkpoint again");
}

void HyperParameters::require_supported(bool ok, std::string_view key,
                                        const std::string& why) const {
  if (ok) return;
  const auto* value = find(key);
  throw bad_input(fmt::format("{} is {}, {}: this program cannot run the model", name(key),
                              value ? value->to_display() : "missing", why),
                  file_.path(), kRoundOnly);
}

void require_shape(const gguf::File& file, const std::string& name,
                   std::initializer_list<std::int64_t> shape) {
  const auto& tensor = file.require(name);
  std::array<std::uint64_t, 4> expected{1, 1, 1, 1};
  std::copy(shape.begin(), shape.end(), expected.begin());
  if (tensor.shape == expected) return;
  throw bad_input(
      fmt::format("{} has shape {}, but the hyper-parameters ask for [{}]", name,
                  tensor.shape_text(), fmt::join(shape, ", ")),
      file.path(),
      "the file is damaged or was converted wrongly: convert the original checkpoint again");
}

void require_known_tensors(const gguf::File& file,
                           std::initializer_list<std::string_view> unsupported) {
  for (const auto& tensor : file.tensors()) {
    const bool factor = block_of(tensor.name) >= 0 && tensor.name.ends_with(".scale");
    if (!factor &&
        std::find(unsupported.begin(), unsupported.end(), tensor.name) == unsupported.end())
      continue;
    throw bad_input(
        fmt::format("{} changes what a product gives: this program cannot run the model",
                    tensor.name),
        file.path(), kRoundOnly);
  }
}

std::string weight_name(std::int64_t block, std::string_view part) {
  return fmt::format("blk.{}.{}.weight", block, part);
}

torch::Tensor biased_product(const Pass& pass, std::int64_t block, std::string_view part,
                             const torch::Tensor& x) {
  const auto y = pass.linear(weight_name(block, part), x);
  const auto bias = fmt::format("blk.{}.{}.bias", block, part);
  return pass.weights.has(bias) ? y + pass.weights.get(bias).to(y.scalar_type()) : y;
}

void check_bias(const gguf::File& file, std::int64_t block, std::string_view part,
                std::int64_t size) {
  const auto name = fmt::format("blk.{}.{}.bias", block, part);
  if (file.find(name)) require_shape(file, name, {size});
}

torch::Tensor cached_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, BlockState* state) {
  auto keys = k.transpose(1, 2), values = v.transpose(1, 2);
  if (state) {
    keys = state->append("k", keys);
    values = state->append("v", values);
    state->n_past += q.size(1);
  }
  return causal_attention(q, keys, values);
}

torch::Tensor Architecture::draft_input(std::int64_t block, const torch::Tensor&,
                                        const torch::Tensor&, const Pass& pass) const {
  throw bad_input(fmt::format("block {} drafts no tokens", block), pass.weights.file().path());
}

std::vector<Stage> stages_of(const Architecture& architecture, std::int64_t block) {
  std::vector<Stage> stages;
  for (const Part& part : architecture.parts(block))
    stages.insert(stages.end(), part.stages.begin(), part.stages.end());
  return stages;
}

namespace {

std::vector<MatrixId> weights_of_blocks(const Architecture& architecture, std::int64_t first,
                                        std::int64_t last) {
  std::vector<MatrixId> ids;
  for (std::int64_t block = first; block < last; ++block) {
    for (const Stage& stage : stages_of(architecture, block)) {
      for (const Readers& readers : stage) ids.insert(ids.end(), readers.begin(), readers.end());
    }
  }
  return ids;
}

}  // namespace

std::vector<MatrixId> multiplied_weights(const Architecture& architecture) {
  auto ids = weights_of_blocks(architecture, 0, architecture.n_blocks());
  ids.push_back(architecture.head_name());
  return ids;
}

std::set<MatrixId> gathered_weights(const Architecture& architecture) {
  const auto n = architecture.n_blocks();
  const auto ids = multiplied_weights(architecture),
             drafts = weights_of_blocks(architecture, n, n + architecture.n_draft_blocks());
  std::set<MatrixId> all(ids.begin(), ids.end());
  all.insert(drafts.begin(), drafts.end());
  return all;
}

std::string block_prefix(std::int64_t block) { return fmt::format("blk.{}.", block); }

std::int64_t block_of(std::string_view tensor_name) {
  constexpr std::string_view kPrefix = "blk.";
  std::int64_t block = -1;
  if (tensor_name.starts_with(kPrefix))
    std::from_chars(tensor_name.data() + kPrefix.size(), tensor_name.data() + tensor_name.size(),
                    block);
  return block;
}

}  // namespace spectralquant::model
