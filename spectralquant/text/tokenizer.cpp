#include "spectralquant/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <initializer_list>

#include "spectralquant/core/error.h"
#include "spectralquant/text/special_tokens.h"
#include "spectralquant/text/vocabulary.h"
#include "spectralquant/text/word_encoder.h"

namespace spectralquant::text {
namespace {

/// The white space that some models' tokens swallow: not in the file, but known by names.
struct SwallowedSpace {
  std::string before = {};  ///< text of the token that swallows what stands before it
  bool is_phi3 = false;     ///< most tokens swallow what follows
};

SwallowedSpace find_swallowed_space(const gguf::Metadata& metadata) {
  std::string name(metadata.string_or("general.name", ""));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const std::string_view pre = metadata.string_or("tokenizer.ggml.pre", "");
  const auto is_any = [](std::string_view text, std::initializer_list<std::string_view> parts) {
    return std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
      return text.find(part) != std::string_view::npos;
    });
  };
  if (is_any(pre, {"jina-v2-de", "jina-v2-es", "jina-v2-code"})) return {.before = "<mask>"};
  if (is_any(name, {"phi-3", "phi3"})) return {.is_phi3 = true};
  if (is_any(name, {"modern-bert"})) return {.before = "[MASK]"};
  return {};
}

SpecialTokens find_specials(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  const SwallowedSpace space = find_swallowed_space(metadata);
  std::vector<SpecialToken> specials;
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const TokenKind kind = vocabulary.kind(id);
    if (kind != TokenKind::kControl && kind != TokenKind::kUserDefined &&
        kind != TokenKind::kUnknown)
      continue;
    SpecialToken token;
    token.id = static_cast<TokenId>(id);
    token.text = vocabulary.text(id);
    token.only_when_parsing = kind != TokenKind::kUserDefined;
    token.strip_left = token.text == space.before;
    token.strip_right = space.is_phi3 && token.text != "<unk>" && token.text != "<s>" &&
                        token.text != "<|endoftext|>";
    specials.push_back(std::move(token));
  }
  return SpecialTokens(std::move(specials));
}

/// What the text of a byte token, "<0x0A>", stands for.
char byte_of(const std::string& text) {
  if (text.size() <= 4) return '\0';
  return static_cast<char>(std::strtol(text.substr(3, 2).c_str(), nullptr, 16));
}

std::string piece_of(const std::string& text, TokenKind kind, const WordEncoder& encoder) {
  switch (kind) {
    case TokenKind::kNormal:
      return encoder.bytes_of(text);
    case TokenKind::kControl:
    case TokenKind::kUserDefined:
    case TokenKind::kUnknown:
      return text;
    case TokenKind::kByte:
      return std::string(1, byte_of(text));
    default:
      return {};
  }
}

}  // namespace

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  SpecialTokens specials;
  std::unique_ptr<WordEncoder> encoder;
  std::vector<std::string> pieces;  ///< of each token, for decode()
  TokenId bos = -1, eos = -1;
  bool add_bos = false, add_eos = false;

  explicit Impl(const gguf::Metadata& metadata)
      : vocabulary(metadata), specials(find_specials(metadata, vocabulary)) {
    TokenizerModel model = make_tokenizer_model(metadata, vocabulary);
    encoder = std::move(model.encoder);
    add_bos =
        metadata.bool_or("tokenizer.ggml.add_bos_token", model.add_bos) || model.always_adds_bos;
    add_eos = metadata.bool_or("tokenizer.ggml.add_eos_token", false);
    bos = read_special(metadata, "tokenizer.ggml.bos_token_id", add_bos ? model.bos : -1);
    eos = read_special(metadata, "tokenizer.ggml.eos_token_id", add_eos ? model.eos : -1);
    if (add_bos && bos < 0) refuse_missing(metadata, "bos");
    if (add_eos && eos < 0) refuse_missing(metadata, "eos");
    for (std::size_t id = 0; id < vocabulary.size(); ++id)
      pieces.push_back(piece_of(vocabulary.text(id), vocabulary.kind(id), *encoder));
  }

  /// A key that names no token counts as absent, as in llama.cpp.
  TokenId read_special(const gguf::Metadata& metadata, std::string_view key,
                       TokenId fallback) const {
    const auto n_tokens = static_cast<std::int64_t>(vocabulary.size());
    const std::int64_t id = metadata.int_or(key, -1);
    if (id >= 0 && id < n_tokens) return static_cast<TokenId>(id);
    return fallback < n_tokens ? fallback : -1;
  }

  [[noreturn]] static void refuse_missing(const gguf::Metadata& metadata, std::string_view which) {
    throw bad_input(
        fmt::format(
            "tokenizer.ggml.add_{0}_token is on, but tokenizer.ggml.{0}_token_id is not set",
            which),
        metadata.place, "convert the model again");
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_metadata(const gguf::Metadata& metadata) {
  require_known_model(metadata);  // before the vocabulary is read: others may not even have one
  return Tokenizer(std::make_unique<Impl>(metadata));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3);
  if (options.add_special && impl_->add_bos) ids.push_back(impl_->bos);
  bool is_first = !options.follows_text;
  for (const Fragment& fragment : impl_->specials.partition(text, options.parse_special)) {
    if (fragment.id >= 0) {
      ids.push_back(fragment.id);
    } else {
      impl_->encoder->encode(fragment.text, is_first, ids);
    }
    is_first = fragment.id >= 0;
  }
  if (options.add_special && impl_->add_eos) ids.push_back(impl_->eos);
  return ids;
}

std::string Tokenizer::decode(const std::vector<TokenId>& ids) const {
  std::string text;
  for (TokenId id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= impl_->pieces.size()) {
      throw bad_input(
          fmt::format("token {} is not in the vocabulary of {}", id, impl_->pieces.size()), "",
          "decode with the tokenizer the ids were made with");
    }
    text += impl_->pieces[id];
  }
  return text;
}

std::size_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }
TokenId Tokenizer::bos() const { return impl_->bos; }
TokenId Tokenizer::eos() const { return impl_->eos; }
bool Tokenizer::adds_bos() const { return impl_->add_bos; }
TokenId Tokenizer::find(std::string_view token_text) const {
  return impl_->vocabulary.find(token_text);
}
bool Tokenizer::is_special(TokenId id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= vocab_size()) return false;
  const TokenKind kind = impl_->vocabulary.kind(id);
  return kind == TokenKind::kControl || kind == TokenKind::kUserDefined;
}

}  // namespace spectralquant::text
