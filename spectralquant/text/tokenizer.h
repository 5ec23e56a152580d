#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::text {

using TokenId = std::int32_t;

/// How text becomes tokens; the defaults are those of llama-tokenize.
///
/// llama-perplexity and llama-imatrix add special tokens, but parse none in plain text
/// (llama-imatrix does with --parse-special).
struct EncodeOptions {
  /// add BOS/EOS where the model asks for it (tokenizer.ggml.add_bos_token)
  bool add_special = true;
  /// "<|im_start|>" in the text becomes the special token, not its letters
  bool parse_special = true;
  /// the text goes on behind other text: SentencePiece puts no space in front of it
  bool follows_text = false;
};

/// The tokenizer of a model, made from GGUF metadata; ids equal stock llama.cpp's.
///
/// BPE (tokenizer.ggml.model "gpt2", "gemma4") and SentencePiece ("llama").
///
///     auto tokenizer = text::Tokenizer::from_metadata(file.metadata());
///     auto ids = tokenizer.encode("Hello");
///
/// Errors   Error(kBadInput) for an unsupported tokenizer model or pre-tokenizer (named, with the
///          supported list), missing keys, merges that do not parse.
/// Threads  const members may be called from any thread.
class Tokenizer {
 public:
  static Tokenizer from_metadata(const gguf::Metadata& metadata);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const;

  /// Bytes of the tokens; special tokens are rendered as their text. May be invalid UTF-8 at the
  /// ends. The space that SentencePiece puts in front of a text is part of its first token.
  std::string decode(const std::vector<TokenId>& ids) const;

  std::size_t vocab_size() const;
  TokenId bos() const;    ///< -1 if the model has none
  TokenId eos() const;    ///< -1 if the model has none
  bool adds_bos() const;  ///< encode() with add_special puts bos() first
  /// id of a token by its exact text, -1 if absent
  TokenId find(std::string_view token_text) const;
  bool is_special(TokenId id) const;  ///< control or user-defined token

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace spectralquant::text
