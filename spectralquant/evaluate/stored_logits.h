#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "spectralquant/evaluate/suite.h"
#include "spectralquant/gguf/mapping.h"

namespace spectralquant::evaluate {

/// What a model predicted at one position, in 16 bits: log p(v) = lowest + step · level[v].
struct StoredRow {
  float step = 0, lowest = 0;
  std::span<const std::uint16_t> levels;  ///< one a token of the vocabulary
};

/// Predictions that `llama-perplexity --kl-divergence-base FILE` stored, mapped read-only. Pages
/// are read when they are used, so that memory does not grow with the file.
///
/// Layout, little-endian:
///     "_logits_" · u32 n (tokens a window) · i32 vocabulary V · i32 windows W · i32 tokens[W][n]
///     then for each window the n − 1 − n/2 positions n/2 … n − 2:
///     f32 step · f32 lowest · u16 level[V], and one u16 more where V is odd
///
/// Levels reach down to 16 nats below the likeliest token, so one step is at most 16/65535 nats;
/// less likely tokens have level 0.
///
/// Errors   Error(kBadInput): no such file, another format, cut off (says in which window),
///          impossible sizes, token ids or steps.
/// Source   llama.cpp, tools/perplexity/perplexity.cpp.
class StoredLogits {
 public:
  static StoredLogits open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::string& hash() const { return hash_; }  ///< of the file's bytes
  std::int64_t window_tokens() const { return n_tokens_; }
  std::int64_t vocab_size() const { return n_vocab_; }
  std::int64_t n_windows() const { return n_windows_; }
  /// the text's own tokens: where a model adds BOS, it stands over the first one when it is run
  std::span<const std::int32_t> tokens(std::int64_t window) const;
  /// the prediction of token window_tokens()/2 + 1 + i of a window
  StoredRow row(std::int64_t window, std::int64_t i) const;
  std::int64_t rows_per_window() const { return n_tokens_ - 1 - n_tokens_ / 2; }

 private:
  StoredLogits(const std::string& path, gguf::Mapping file);
  void check_size() const;
  void check_values() const;
  std::uint64_t row_bytes() const {
    return 8 + 4 * ((static_cast<std::uint64_t>(n_vocab_) + 1) / 2);
  }
  std::uint64_t window_bytes() const {
    return static_cast<std::uint64_t>(rows_per_window()) * row_bytes();
  }
  const std::byte* row_data(std::int64_t window, std::int64_t i) const;

  std::string path_, hash_;
  gguf::Mapping file_;
  std::int64_t n_tokens_ = 0, n_vocab_ = 0, n_windows_ = 0;
};

/// The suite that the predictions were stored on: item i is window i, protocol cN.
///
/// Errors   Error(kBadInput) if the tokenizer has another number of tokens.
Suite suite_of(const StoredLogits& stored, const text::Tokenizer& tokenizer);

}  // namespace spectralquant::evaluate
