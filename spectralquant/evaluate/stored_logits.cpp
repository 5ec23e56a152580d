#include "spectralquant/evaluate/stored_logits.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/evaluate/names.h"

namespace spectralquant::evaluate {
namespace {

constexpr std::string_view kLogitsMagic = "_logits_";
constexpr std::uint64_t kHeadBytes = 20;
constexpr const char* kLogitsFix =
    "make it with: llama-perplexity -m ORIGINAL.gguf -f TEXT --kl-divergence-base FILE";

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

StoredLogits StoredLogits::open(const std::string& path) {
  gguf::Mapping file(path, kLogitsFix);
  if (file.size() < kLogitsMagic.size() ||
      std::memcmp(file.data(), kLogitsMagic.data(), kLogitsMagic.size()) != 0)
    throw bad_input(path + " holds no predictions of llama-perplexity", path, kLogitsFix);
  if (file.size() < kHeadBytes) throw bad_input(path + " is cut off in its head", path, kLogitsFix);
  StoredLogits stored(path, std::move(file));
  stored.check_size();
  stored.check_values();
  stored.hash_ = hash_file(path);
  return stored;
}

StoredLogits::StoredLogits(const std::string& path, gguf::Mapping file)
    : path_(path), file_(std::move(file)) {
  const std::byte* counts = file_.data() + kLogitsMagic.size();
  n_tokens_ = load<std::int32_t>(counts);
  n_vocab_ = load<std::int32_t>(counts + 4);
  n_windows_ = load<std::int32_t>(counts + 8);
}

void StoredLogits::check_size() const {
  if (n_tokens_ < 4 || n_vocab_ < 1 || n_windows_ < 1)
    throw bad_input(fmt::format("{} says that it holds {} windows of {} tokens, vocabulary {}",
                                path_, n_windows_, n_tokens_, n_vocab_),
                    path_, kLogitsFix);
  // All three are below 2^31: a window has less than 2^63 bytes, all windows may have more.
  const std::uint64_t n_windows = static_cast<std::uint64_t>(n_windows_),
                      tokens_bytes = 4 * static_cast<std::uint64_t>(n_tokens_),
                      rest = file_.size() - kHeadBytes;
  const bool is_whole = n_windows <= rest / (tokens_bytes + window_bytes());
  if (!is_whole) {
    const std::uint64_t all_tokens = n_windows * tokens_bytes,
                        complete = rest < all_tokens ? 0 : (rest - all_tokens) / window_bytes();
    throw bad_input(
        fmt::format("{} is cut off: {} of {} windows are whole", path_, complete, n_windows_),
        fmt::format("{}, {} bytes", path_, file_.size()), kLogitsFix);
  }
  if (const auto more = rest - n_windows * (tokens_bytes + window_bytes()); more > 0)
    throw bad_input(fmt::format("{} has {} bytes after its last window", path_, more), path_,
                    kLogitsFix);
}

void StoredLogits::check_values() const {
  for (std::int64_t w = 0; w < n_windows_; ++w) {
    for (const auto id : tokens(w))
      if (id < 0 || id >= n_vocab_)
        throw bad_input(fmt::format("{} holds token {} of a vocabulary of {}", path_, id, n_vocab_),
                        fmt::format("{}, window {}", path_, w + 1), kLogitsFix);
    for (std::int64_t i = 0; i < rows_per_window(); ++i) {
      const auto at = row(w, i);
      if (!std::isfinite(at.step) || !std::isfinite(at.lowest) || at.step < 0)
        throw bad_input(
            path_ + " holds predictions that are not finite",
            fmt::format("{}, window {}, token {}", path_, w + 1, n_tokens_ / 2 + 1 + i),
            "the original itself predicts no numbers there: convert it again, then store anew");
    }
  }
}

std::span<const std::int32_t> StoredLogits::tokens(std::int64_t window) const {
  // The head has 20 bytes: a mapping begins at a page, so the tokens are aligned.
  return {reinterpret_cast<const std::int32_t*>(file_.data() + kHeadBytes) + window * n_tokens_,
          static_cast<std::size_t>(n_tokens_)};
}

const std::byte* StoredLogits::row_data(std::int64_t window, std::int64_t i) const {
  return file_.data() + kHeadBytes + 4 * n_windows_ * n_tokens_ +
         static_cast<std::uint64_t>(window) * window_bytes() +
         static_cast<std::uint64_t>(i) * row_bytes();
}

StoredRow StoredLogits::row(std::int64_t window, std::int64_t i) const {
  const std::byte* data = row_data(window, i);
  return {load<float>(data),
          load<float>(data + 4),
          {reinterpret_cast<const std::uint16_t*>(data + 8), static_cast<std::size_t>(n_vocab_)}};
}

Suite suite_of(const StoredLogits& stored, const text::Tokenizer& tokenizer) {
  if (static_cast<std::int64_t>(tokenizer.vocab_size()) != stored.vocab_size())
    throw bad_input(
        fmt::format("{} was stored with a vocabulary of {} tokens; the candidates have {}",
                    stored.path(), stored.vocab_size(), tokenizer.vocab_size()),
        stored.path(), "store the predictions of the candidates' own original");
  std::vector<std::vector<text::TokenId>> windows;
  for (std::int64_t w = 0; w < stored.n_windows(); ++w) {
    const auto tokens = stored.tokens(w);
    windows.emplace_back(tokens.begin(), tokens.end());
  }
  Suite suite;
  suite.spec.name = shortest_names({stored.path()})[0];
  suite.spec.pattern = stored.path();
  suite.spec.protocol = Protocol::kStock;
  suite.spec.window_tokens = stored.window_tokens();
  suite.spec.protocol_text = fmt::format("c{}", stored.window_tokens());
  suite.items = as_stock_windows(std::move(windows), tokenizer);
  complete(suite, stored.n_windows());
  return suite;
}

}  // namespace spectralquant::evaluate
