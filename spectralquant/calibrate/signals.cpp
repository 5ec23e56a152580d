#include "spectralquant/calibrate/signals.h"

#include <fmt/format.h>

#include <fstream>

#include "spectralquant/calibrate/pages.h"
#include "spectralquant/calibrate/signal_file.h"
#include "spectralquant/core/error.h"
#include "spectralquant/model/decode.h"

namespace spectralquant::calibrate {
namespace {

constexpr std::string_view kType = "spectralquant-signals";
constexpr std::uint32_t kFileVersion = 1;
constexpr const char* kPrefix = "spectralquant.signals.";

std::string key(const char* name) { return std::string(kPrefix) + name; }

Error damaged_signals(const std::string& path, std::string problem) {
  return bad_input("damaged signals file: " + std::move(problem), path,
                   "gather the signals again: spectralquant calibrate");
}

/// Every value is finite; on the diagonal of a moment, and in a list, none is negative.
///
/// Shapes   square moments [n, n], lists [n].
void require_moment(const torch::Tensor& values, bool list, const std::string& name,
                    const std::string& path) {
  if (!list && (values.dim() != 2 || values.size(0) != values.size(1)))
    throw damaged_signals(path, fmt::format("{} is not square", name));
  const torch::Tensor flat = values.reshape({-1});
  if (const torch::Tensor bad = ~flat.isfinite(); bad.any().item<bool>())
    throw damaged_signals(path, fmt::format("{} holds NaN or infinity at value {}", name,
                                            bad.nonzero()[0][0].item<std::int64_t>()));
  const torch::Tensor diagonal = list ? flat : values.diagonal();
  if (const torch::Tensor bad = diagonal < 0; bad.any().item<bool>())
    throw damaged_signals(path, fmt::format("{} is negative at {} {}", name, list ? "value" : "row",
                                            bad.nonzero()[0][0].item<std::int64_t>()));
}

/// llama.cpp's format before GGUF: n_entries, then length and name of the first entry.
bool is_old_imatrix(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::int32_t n_entries = 0, length = 0;
  in.read(reinterpret_cast<char*>(&n_entries), sizeof n_entries)
      .read(reinterpret_cast<char*>(&length), sizeof length);
  if (!in || n_entries < 1 || n_entries > 1000000 || length < 1 || length > 256) return false;
  std::string name(static_cast<std::size_t>(length), '\0');
  in.read(name.data(), length);
  return in && name.find("weight") != std::string::npos;
}

}  // namespace

void TensorList::add(std::string name, const torch::Tensor& tensor) {
  gguf::TensorPlan plan;
  plan.name = std::move(name);
  plan.n_dims = static_cast<std::uint32_t>(tensor.dim());
  for (std::int64_t i = 0; i < tensor.dim(); ++i)
    plan.shape[static_cast<std::size_t>(i)] =
        static_cast<std::uint64_t>(tensor.size(tensor.dim() - 1 - i));
  plans_.push_back(std::move(plan));
  tensors_.push_back(tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous());
}

void TensorList::write(const std::string& path, const gguf::Metadata& metadata,
                       bool overwrite) const {
  gguf::WriteOptions options;
  options.overwrite = overwrite;
  gguf::Writer writer(path, metadata, plans_, options);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    writer.write(i, 0, tensors_[i].data_ptr<float>(), tensors_[i].numel() * sizeof(float));
    page_out(tensors_[i]);
  }
  writer.commit();
}

torch::Tensor read_tensor(const gguf::Tensor& tensor) {
  const torch::Tensor rows = model::decode_rows(tensor, 0, tensor.n_rows());
  return tensor.n_dims > 1 ? rows : rows.squeeze(0);
}

gguf::File open_signal_file(const std::string& path) {
  if (is_old_imatrix(path)) {
    throw bad_input(
        "this is an importance matrix in llama.cpp's old format; only the GGUF form is read", path,
        "make it again with llama-imatrix --output-format gguf");
  }
  std::ifstream in(path, std::ios::binary);
  if (std::string magic(4, '\0'); in && (!in.read(magic.data(), 4) || magic != "GGUF"))
    throw bad_input(
        "this is neither a signals file nor an importance matrix", path,
        "make one with: spectralquant calibrate, or llama-imatrix --output-format gguf");
  return gguf::File::open(path);
}

void save_signals(const Signals& signals, const std::string& path, bool overwrite) {
  gguf::Metadata metadata;
  metadata.set("general.type", gguf::Value::of_string(kType));
  metadata.set(key("version"), gguf::Value::of_u32(kFileVersion));
  metadata.set(key("n_tokens"), gguf::Value::of_u64(static_cast<std::uint64_t>(signals.n_tokens)));
  metadata.set(key("text_hash"), gguf::Value::of_string(signals.text_hash));
  metadata.set(key("model_hash"), gguf::Value::of_string(signals.model_hash));
  metadata.set(key("description"), gguf::Value::of_string(signals.description));
  metadata.set(key("diagonal_only"), gguf::Value::of_bool(signals.diagonal_only));

  TensorList tensors;
  // owner: the matrix under whose name the H of another is stored, "" if it has none
  std::vector<std::string> names, owners;
  std::map<const void*, std::string> stored;
  for (const auto& [id, signal] : signals.matrices) {
    const std::string name = id.text();
    names.push_back(name);
    if (!signal.h.defined()) {
      owners.emplace_back();
    } else {
      const auto [it, is_new] = stored.emplace(signal.h.data_ptr(), name);
      if (is_new) tensors.add(name + ".h", signal.h);
      owners.push_back(it->second);
    }
    if (signal.g.defined()) tensors.add(name + ".g", signal.g);
    if (signal.frequency.defined()) tensors.add(name + ".frequency", signal.frequency);
    if (signal.c.defined()) tensors.add(name + ".c", signal.c);
    if (signal.n_tokens >= 0)
      tensors.add(name + ".counts", torch::full({1}, static_cast<float>(signal.n_tokens)));
  }
  metadata.set(key("matrices"), gguf::Value::of_strings(names));
  metadata.set(key("h_of"), gguf::Value::of_strings(owners));
  tensors.write(path, metadata, overwrite);
}

Signals load_signals(const std::string& path) {
  const gguf::File file = open_signal_file(path);
  const gguf::Metadata& metadata = file.metadata();
  if (metadata.string_or("general.type", "") != kType) {
    throw bad_input("this GGUF file holds no signals", path,
                    "signals are made by: spectralquant calibrate");
  }
  if (const auto version = metadata.require_int(key("version")); version != kFileVersion) {
    throw bad_input(fmt::format("signals of format version {}; this build reads version {}",
                                version, kFileVersion),
                    path, "gather the signals again: spectralquant calibrate");
  }
  Signals signals;
  signals.n_tokens = metadata.require_int(key("n_tokens"));
  if (signals.n_tokens < 0)
    throw damaged_signals(path, fmt::format("it was gathered on {} tokens", signals.n_tokens));
  signals.text_hash = metadata.require_string(key("text_hash"));
  signals.model_hash = metadata.require_string(key("model_hash"));
  signals.description = metadata.require_string(key("description"));
  signals.diagonal_only = metadata.bool_or(key("diagonal_only"), false);

  const gguf::Value* names = metadata.find(key("matrices"));
  const gguf::Value* owners = metadata.find(key("h_of"));
  if (!names || !owners || names->strings().size() != owners->strings().size())
    throw damaged_signals(path, "its list of matrices is missing or incomplete");
  std::map<std::string, torch::Tensor, std::less<>> shared;
  const auto optional = [&](const std::string& name, bool list) {
    const gguf::Tensor* tensor = file.find(name);
    if (!tensor) return torch::Tensor();
    const torch::Tensor values = read_tensor(*tensor);
    require_moment(values, list, name, path);
    return values;
  };
  const auto name_views = names->strings(), owner_views = owners->strings();
  for (std::size_t i = 0; i < name_views.size(); ++i) {
    const std::string name(name_views[i]), owner(owner_views[i]);
    MatrixSignal& signal = signals.matrices[gguf::MatrixId::parse(name)];
    if (!owner.empty()) {
      torch::Tensor& h = shared[owner];
      if (!h.defined()) h = optional(owner + ".h", signals.diagonal_only);
      if (!h.defined()) throw damaged_signals(path, fmt::format("{}.h is missing", owner));
      signal.h = h;
    }
    const gguf::Tensor* g = file.find(name + ".g");
    signal.g = optional(name + ".g", g && g->n_dims == 1);
    signal.frequency = optional(name + ".frequency", true);
    signal.c = optional(name + ".c", false);
    if (const torch::Tensor counts = optional(name + ".counts", true); counts.defined())
      signal.n_tokens = static_cast<std::int64_t>(counts.reshape({-1})[0].item<float>());
  }
  return signals;
}

torch::Tensor smoothed_frequency(const torch::Tensor& frequency, std::int64_t n_tokens) {
  const double n = static_cast<double>(n_tokens), v = static_cast<double>(frequency.size(0));
  return ((frequency.to(torch::kFloat64) * n + 0.5) / (n + 0.5 * v)).to(torch::kFloat32);
}

void split_rows(Signals& signals, const gguf::File& model) {
  for (auto it = signals.matrices.begin(); it != signals.matrices.end();) {
    const gguf::MatrixId id = it->first;
    const torch::Tensor h = it->second.h;
    const gguf::Tensor* tensor = model.find(id.tensor);
    const auto matrices = tensor ? gguf::matrices_of(*tensor) : std::vector<gguf::Matrix>{};
    const auto n = static_cast<std::int64_t>(matrices.size());
    if (id.slice != gguf::MatrixId::kWhole || n < 2 || h.dim() != 1 ||
        h.size(0) != n * matrices.front().cols()) {
      ++it;
      continue;
    }
    it = signals.matrices.erase(it);
    const torch::Tensor rows = h.reshape({n, -1});
    for (std::int64_t i = 0; i < n; ++i) signals.matrices[{id.tensor, i}].h = rows[i].clone();
  }
}

namespace {

/// Matrices by tensor.
using Counts = std::map<std::string, std::int64_t>;

void require_as_many(const Counts& signals, const Counts& model, const std::string& place,
                     const char* fix) {
  for (const auto& [name, n] : model) {
    const auto it = signals.find(name);
    if (it == signals.end() || it->second == n) continue;
    throw bad_input(
        fmt::format(
            "H of {} is of {} matrices, the model has {}: these signals are of another model", name,
            it->second, n),
        place, fix);
  }
}

}  // namespace

void require_fit(const Signals& signals, const std::vector<gguf::Matrix>& matrices,
                 const std::string& place) {
  const char* fix = "use signals gathered on this model";
  Counts of_signals, of_model;
  for (const auto& [id, signal] : signals.matrices) ++of_signals[id.tensor];
  for (const gguf::Matrix& matrix : matrices) ++of_model[matrix.tensor->name];
  require_as_many(of_signals, of_model, place, fix);
  for (const gguf::Matrix& matrix : matrices) {
    const std::string name = matrix.id().text();
    const auto it = signals.matrices.find(matrix.id());
    if (it == signals.matrices.end())
      throw bad_input(fmt::format("no signal for {}, which the model multiplies by", name), place,
                      fix);
    const MatrixSignal& signal = it->second;
    const auto check = [&](const torch::Tensor& tensor, const char* what, std::int64_t expected) {
      if (!tensor.defined() || tensor.size(-1) == expected) return;
      throw bad_input(
          fmt::format(
              "{} of {} has size {}, the model needs {}: these signals are of another model", what,
              name, tensor.size(-1), expected),
          place, fix);
    };
    check(signal.h, "H", matrix.cols());
    check(signal.g, "G", matrix.rows());
    check(signal.frequency, "token frequency", matrix.rows());
    check(signal.c, "C", matrix.cols());
  }
}

}  // namespace spectralquant::calibrate
