#include "spectralquant/model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

namespace spectralquant::model {
namespace {

// llama.cpp's defaults of --yarn-beta-fast and --yarn-beta-slow: pairs that turn more often than
// this over the original context keep their frequency, pairs that turn less often are scaled.
constexpr double kFastTurns = 32, kSlowTurns = 1;

/// 1 / rope.scaling.factor, or of the key's older name; a factor of 0 stands for none.
double frequency_scale(const HyperParameters& get) {
  const char* key = get.find("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
  const double factor = get.number_or(key, 0);
  get.require(factor >= 0, key, "which must not be negative");
  return factor == 0 ? 1.0 : 1.0 / factor;
}

/// Share of its own frequency that pair i keeps under YaRN, from 1 (fast) to 0 (slow).
double kept_share(const Rope& rope, double pair, double context) {
  // the pair that turns so many times over the original context
  const auto turning = [&](double turns) {
    return static_cast<double>(rope.n_dims) * std::log(context / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.base));
  };
  const double first = std::max(0.0, std::floor(turning(kFastTurns))),
               last =
                   std::min(static_cast<double>(rope.n_dims - 1), std::ceil(turning(kSlowTurns)));
  return 1 - std::clamp((pair - first) / std::max(0.001, last - first), 0.0, 1.0);
}

void read_scaling(const HyperParameters& get, Rope& rope) {
  rope.magnitude = get.number_or("rope.scaling.attn_factor", 1);
  const auto* stored = get.find("rope.scaling.type");
  const std::string_view type = stored ? stored->as_string().value_or("") : "linear";
  get.require(type == "none" || type == "linear" || type == "yarn" || type == "longrope",
              "rope.scaling.type", "which llama.cpp does not know");
  const bool has_factors = get.file().find("rope_factors_long.weight") != nullptr;
  get.require_supported(type != "longrope" || !has_factors, "rope.scaling.type",
                        "which turns by factors that depend on the length of the context");
  const double scale = type == "none" ? 1.0 : frequency_scale(get);
  if (type == "yarn") {
    const auto trained = get.count("context_length"),
               original = get.count_or("rope.scaling.original_context_length", trained);
    const double context = static_cast<double>(original > 0 ? original : trained);
    for (std::int64_t i = 0; i < rope.n_dims / 2; ++i) {
      const double kept = kept_share(rope, static_cast<double>(i), context);
      rope.scale.push_back(static_cast<float>(scale * (1 - kept) + kept));
    }
    if (scale < 1) rope.magnitude *= 1 + 0.1 * std::log(1 / scale);
  } else if (scale != 1) {
    rope.scale.assign(static_cast<std::size_t>(rope.n_dims / 2), static_cast<float>(scale));
  }
}

}  // namespace

Rope read_rope(const HyperParameters& get, std::int64_t head_size) {
  Rope rope;
  rope.n_dims = get.count_or("rope.dimension_count", head_size);
  get.require(rope.n_dims > 0 && rope.n_dims % 2 == 0 && rope.n_dims <= head_size,
              "rope.dimension_count",
              fmt::format("which must be even, above 0 and no more than the head's {} dimensions",
                          head_size));
  rope.base = get.number_or("rope.freq_base", rope.base);
  get.require(rope.base > 0, "rope.freq_base", "which must be above 0");
  get.require_supported(!get.find("rope.section_order"), "rope.section_order",
                        "an order of sections");
  read_scaling(get, rope);
  return rope;
}

torch::Tensor Rope::scale_on(torch::Device device) const {
  const std::lock_guard lock(copies->mutex);
  torch::Tensor& copy = copies->by_device[{device.type(), device.index()}];
  if (!copy.defined()) copy = torch::tensor(scale).to(device);
  return copy;
}

torch::Tensor rotate(const torch::Tensor& x, const Rope& rope, std::int64_t first_position) {
  const auto options = torch::TensorOptions().device(x.device()).dtype(torch::kFloat32);
  const auto n_tokens = x.size(1);
  const auto half = rope.n_dims / 2;
  auto frequency = torch::pow(
      rope.base, torch::arange(0, half, options) * (-2.0 / static_cast<double>(rope.n_dims)));
  if (!rope.scale.empty()) frequency = frequency * rope.scale_on(x.device());
  const auto position = torch::arange(first_position, first_position + n_tokens, options);
  const auto angle = (position.unsqueeze(-1) * frequency).unsqueeze(1);  // [T, 1, half]
  auto cos = angle.cos(), sin = angle.sin();
  if (rope.magnitude != 1) {
    cos = cos * rope.magnitude;
    sin = sin * rope.magnitude;
  }
  const auto turned = x.narrow(-1, 0, rope.n_dims);
  const auto a =
      (rope.adjacent_pairs ? turned.slice(-1, 0, rope.n_dims, 2) : turned.narrow(-1, 0, half))
          .to(torch::kFloat32);
  const auto b =
      (rope.adjacent_pairs ? turned.slice(-1, 1, rope.n_dims, 2) : turned.narrow(-1, half, half))
          .to(torch::kFloat32);
  const auto type = x.scalar_type();
  const auto rotated_a = (a * cos - b * sin).to(type), rotated_b = (b * cos + a * sin).to(type);
  std::vector<torch::Tensor> all{rotated_a, rotated_b};
  if (rope.adjacent_pairs) all = {torch::stack({rotated_a, rotated_b}, -1).flatten(-2)};
  if (rope.n_dims < x.size(-1)) all.push_back(x.narrow(-1, rope.n_dims, x.size(-1) - rope.n_dims));
  return torch::cat(all, -1);
}

}  // namespace spectralquant::model
