#include "spectralquant/evaluate/scorer.h"

#include <fmt/format.h>

#include <cstring>

namespace spectralquant::evaluate {
namespace {

// Hidden states of a suite that are larger than this are not kept on the disk: running the
// reference again is then the lesser evil.
constexpr std::uint64_t kMaxHiddenBytes = std::uint64_t{4} << 30;

template <typename T>
void append(std::string& out, const std::vector<T>& values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
void take(std::string_view& from, std::vector<T>& values, std::size_t n) {
  values.resize(n);
  std::memcpy(values.data(), from.data(), n * sizeof(T));
  from.remove_prefix(n * sizeof(T));
}

std::string to_bytes(const Positions& positions) {
  std::string out;
  append(out, positions.loss);
  append(out, positions.kld);
  append(out, positions.delta_p);
  append(out, positions.same_top);
  return out;
}

std::optional<Positions> positions_of(const std::optional<std::string>& bytes, const Suite& suite) {
  const auto n = static_cast<std::size_t>(suite.n_scored);
  if (!bytes || bytes->size() != n * (3 * sizeof(float) + 1)) return std::nullopt;
  Positions out;
  std::string_view rest = *bytes;
  take(rest, out.loss, n);
  take(rest, out.kld, n);
  take(rest, out.delta_p, n);
  take(rest, out.same_top, n);
  out.unit = units_of(suite);
  return out;
}

std::uint64_t hidden_bytes(const Suite& suite, std::int64_t size) {
  return static_cast<std::uint64_t>(suite.n_scored * size) * sizeof(float);
}

}  // namespace

model::Model& Subject::model() {
  if (!model_) model_ = std::make_unique<model::Model>(file_, options_);
  return *model_;
}

std::string cache_key(const Subject& subject, const std::string& suite_hash,
                      const std::string& also) {
  // Raise the revision whenever the same inputs give other figures.
  constexpr int kRevision = 1;
  return fmt::format("revision {}\nmodel {}\nsuite {}\ndevice {}\ntype {}\n{}\n", kRevision,
                     subject.hash(), suite_hash,
                     subject.options().device.is_cpu() ? "cpu" : "accelerator",
                     c10::toString(subject.options().dtype), also);
}

const std::vector<torch::Tensor>& Scorer::hidden(const Suite& suite, const Progress& progress) {
  if (const auto found = hidden_.find(suite.hash); found != hidden_.end()) return found->second;
  const std::string key = cache_key(*reference_, suite.hash, "hidden");
  const std::int64_t size = reference_->model().architecture().hidden_size();
  const std::uint64_t n_bytes = hidden_bytes(suite, size);
  if (const auto bytes = cache_.find("hidden", key); bytes && bytes->size() == n_bytes) {
    std::vector<torch::Tensor> rows;
    const char* from = bytes->data();
    for (const auto& item : suite.items) {
      rows.push_back(torch::empty({static_cast<std::int64_t>(item.n_scored()), size}));
      std::memcpy(rows.back().data_ptr<float>(), from, rows.back().numel() * sizeof(float));
      from += rows.back().numel() * sizeof(float);
    }
    return hidden_[suite.hash] = std::move(rows);
  }
  auto& rows = hidden_[suite.hash] = hidden_states(reference_->model(), suite, options_, progress);
  if (n_bytes <= kMaxHiddenBytes) {
    std::string bytes;
    bytes.reserve(n_bytes);
    for (const auto& r : rows)
      bytes.append(reinterpret_cast<const char*>(r.data_ptr<float>()), r.numel() * sizeof(float));
    cache_.store("hidden", key, bytes);
  }
  return rows;
}

Positions Scorer::of_reference(const Suite& suite, const Progress& progress) {
  if (stored_) return measure(*stored_, suite);
  const std::string key = cache_key(*reference_, suite.hash, "reference");
  if (auto known = positions_of(cache_.find("scores", key), suite)) return *known;
  const Positions out =
      measure(reference_->model(), hidden(suite, progress), suite, options_, progress);
  cache_.store("scores", key, to_bytes(out));
  return out;
}

Positions Scorer::of_candidate(Subject& candidate, const Suite& suite, const Progress& progress) {
  const std::string key =
      cache_key(candidate, suite.hash,
                stored_ ? "against stored " + stored_->hash() : "against " + reference_->hash());
  if (auto known = positions_of(cache_.find("scores", key), suite)) return *known;
  const Positions out = stored_ ? compare(*stored_, candidate.model(), suite, options_, progress)
                                : compare(reference_->model(), hidden(suite, progress),
                                          candidate.model(), suite, options_, progress);
  cache_.store("scores", key, to_bytes(out));
  return out;
}

}  // namespace spectralquant::evaluate
