#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/metadata.h"
#include "spectralquant/text/vocabulary.h"

namespace spectralquant::text {

/// Turns the plain text between special tokens into ids: one subclass for each kind of tokenizer.
///
/// Threads  const members may be called from any thread.
class WordEncoder {
 public:
  virtual ~WordEncoder() = default;

  /// Appends the tokens of text, which stands at the begin of the document or behind a special
  /// token (is_first), or behind other text.
  virtual void encode(std::string_view text, bool is_first, std::vector<TokenId>& out) const = 0;

  /// The bytes that the text of an ordinary token stands for.
  virtual std::string bytes_of(std::string_view token) const = 0;
};

/// What tokenizer.ggml.model brings along: how words are encoded, and what llama.cpp takes where
/// keys are missing.
struct TokenizerModel {
  std::unique_ptr<WordEncoder> encoder;
  bool add_bos = false;
  bool always_adds_bos = false;  ///< whatever tokenizer.ggml.add_bos_token says
  TokenId bos = -1, eos = -1;
};

/// Errors   Error(kBadInput) for a model that is not supported, by its name.
void require_known_model(const gguf::Metadata& metadata);

/// vocabulary must outlive the result.
///
/// Errors   Error(kBadInput) as the classes of the encoders say; for a pre-tokenizer that is not
///          supported, with the list of those that are.
TokenizerModel make_tokenizer_model(const gguf::Metadata& metadata, const Vocabulary& vocabulary);

}  // namespace spectralquant::text
