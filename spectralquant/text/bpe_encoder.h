#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/bpe.h"
#include "spectralquant/text/pretokenizer.h"
#include "spectralquant/text/word_encoder.h"

namespace spectralquant::text {

/// BPE (tokenizer.ggml.model "gpt2", "gemma4"): text is cut into words, each merged for itself.
class BpeEncoder : public WordEncoder {
 public:
  /// vocabulary and spec must outlive this.
  BpeEncoder(const Vocabulary& vocabulary, const std::vector<std::string_view>& merges,
             const PretokenizerSpec& spec);
  ~BpeEncoder() override;

  void encode(std::string_view text, bool is_first, std::vector<TokenId>& out) const override;
  std::string bytes_of(std::string_view token) const override;

 private:
  void encode_word(std::string_view word, std::vector<TokenId>& out) const;

  class WordCache;
  std::unique_ptr<WordCache> borrow_cache() const;
  void give_back(std::unique_ptr<WordCache> cache) const;

  const PretokenizerSpec& spec_;
  Bpe bpe_;
  Pretokenizer pretokenizer_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<WordCache>> idle_caches_;
};

}  // namespace spectralquant::text
