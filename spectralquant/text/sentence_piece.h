#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/word_encoder.h"

namespace spectralquant::text {

/// SentencePiece's BPE (tokenizer.ggml.model "llama"): neighbours whose joined text is a token are
/// joined, the highest score first, the leftmost among equals.
///
/// Text is not cut into words. A space is "▁"; one more stands before the first text if the model
/// asks for it. Characters that end as no token become their bytes, "<0x0A>".
/// O(n log n) in the length of the text.
/// Shapes   scores: one for each token.
/// Errors   encode(): Error(kBadInput) for a byte that has no token.
/// Source   llama.cpp's llm_tokenizer_spm.
class SentencePiece : public WordEncoder {
 public:
  /// vocabulary must outlive this.
  SentencePiece(const Vocabulary& vocabulary, std::vector<float> scores, bool add_space_prefix);

  void encode(std::string_view text, bool is_first, std::vector<TokenId>& out) const override;
  std::string bytes_of(std::string_view token) const override;

 private:
  void append_bytes(std::string_view text, std::vector<TokenId>& out) const;

  const Vocabulary& vocabulary_;
  std::vector<float> scores_;
  bool add_space_prefix_;
  TokenId byte_tokens_[256];  ///< -1 if absent
};

}  // namespace spectralquant::text
