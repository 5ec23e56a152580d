#include "spectralquant/model/architecture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <vector>

#include "spectralquant/core/error.h"

namespace spectralquant::model {
namespace {

struct Entry {
  std::string_view name;  ///< general.architecture
  std::unique_ptr<Architecture> (*make)(const gguf::File&);
};

// One line per architecture_NAME.cpp.
constexpr std::array kArchitectures{
    Entry{"qwen35", make_qwen35},
};

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

double HyperParameters::positive(std::string_view key) const {
  const auto value = file_.metadata().require_number(name(key));
  require(value > 0, key, "which must be above 0");
  return value;
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

}  // namespace spectralquant::model
