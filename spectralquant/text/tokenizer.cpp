#include "spectralquant/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/text/bpe_encoder.h"
#include "spectralquant/text/sentence_piece.h"
#include "spectralquant/text/special_tokens.h"
#include "spectralquant/text/vocabulary.h"

namespace spectralquant::text {
namespace {

/// Token types, numbered as in tokenizer.ggml.token_type.
enum class Kind : std::uint8_t {
  kUndefined = 0,
  kNormal,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte
};

constexpr TokenId kSentencePieceBos = 1, kSentencePieceEos = 2;  ///< llama.cpp's, likewise
constexpr TokenId kLegacyBos = 11;  ///< llama.cpp's BOS and EOS of a BPE model that names none

/// Texts that llama.cpp takes for control tokens whatever their type says (converters forget to
/// mark them).
/// Source  llama-vocab.cpp: the tokens that end a generation, and those of filling in the middle.
constexpr std::string_view kControlTexts[] = {"<|eot_id|>",
                                              "<|im_end|>",
                                              "<|end|>",
                                              "<|return|>",
                                              "<|call|>",
                                              "<|flush|>",
                                              "<|calls|>",
                                              "<end_of_turn>",
                                              "<|endoftext|>",
                                              "</s>",
                                              "<|eom_id|>",
                                              "<EOT>",
                                              "_<EOT>",
                                              "[EOT]",
                                              "[EOS]",
                                              "<|end_of_text|>",
                                              "<end_of_utterance>",
                                              "<eos>",
                                              "<turn|>",
                                              "<|tool_response>",
                                              "<｜end▁of▁sentence｜>",
                                              "[e~["};

struct FillInMiddle {
  std::string_view keys[2];  ///< when one of them names the token, texts do not count
  std::vector<std::string_view> texts;
};
const std::vector<FillInMiddle>& fill_in_middle() {
  static const std::vector<FillInMiddle> all = {
      {{"fim_pre_token_id", "prefix_token_id"},
       {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>"}},
      {{"fim_suf_token_id", "suffix_token_id"},
       {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>"}},
      {{"fim_mid_token_id", "middle_token_id"},
       {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>"}},
      {{"fim_pad_token_id", ""}, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
      {{"fim_rep_token_id", ""},
       {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
      {{"fim_sep_token_id", ""}, {"<|file_sep|>"}},
  };
  return all;
}

/// Texts llama.cpp always takes for user-defined tokens (gpt-oss).
constexpr std::string_view kUserDefinedTexts[] = {"<|channel|>", "<|message|>", "<|start|>",
                                                  "<|constrain|>"};

std::string key_of(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

std::vector<std::string> read_tokens(const gguf::Metadata& metadata) {
  const gguf::Value* value = metadata.find("tokenizer.ggml.tokens");
  if (!value || !value->is_array() || value->element_type() != gguf::ValueType::kString ||
      value->array_size() == 0) {
    throw bad_input("tokenizer.ggml.tokens is missing or no list of texts", metadata.place,
                    "use a GGUF that carries its tokenizer");
  }
  std::vector<std::string> tokens;
  for (std::string_view text : value->strings()) {
    tokens.emplace_back(text.empty() ? fmt::format("[EMPTY_{}]", tokens.size()) : text);
  }
  return tokens;
}

std::vector<Kind> read_kinds(const gguf::Metadata& metadata,
                             const std::vector<std::string>& tokens) {
  std::vector<Kind> kinds(tokens.size(), Kind::kNormal);
  const gguf::Value* value = metadata.find("tokenizer.ggml.token_type");
  if (!value) return kinds;
  const std::vector<double> numbers = value->numbers();
  if (numbers.size() < tokens.size()) {
    throw bad_input(fmt::format("tokenizer.ggml.token_type has {} entries for {} tokens",
                                numbers.size(), tokens.size()),
                    metadata.place, "convert the model again");
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    kinds[i] = numbers[i] >= 0 && numbers[i] <= 6 ? static_cast<Kind>(static_cast<int>(numbers[i]))
                                                  : Kind::kUndefined;
  }
  return kinds;
}

/// The kinds, corrected by the texts as llama.cpp does it.
std::vector<Kind> correct_kinds(const gguf::Metadata& metadata, const Vocabulary& vocabulary,
                                std::vector<Kind> kinds) {
  const auto set = [&](std::string_view text, Kind kind) {
    if (const TokenId id = vocabulary.find(text); id >= 0) kinds[id] = kind;
  };
  for (const FillInMiddle& part : fill_in_middle()) {
    const bool named = metadata.find(key_of(part.keys[0])) ||
                       (!part.keys[1].empty() && metadata.find(key_of(part.keys[1])));
    const auto known = std::find_if(part.texts.begin(), part.texts.end(),
                                    [&](std::string_view text) { return vocabulary.find(text) >= 0; });
    if (!named && known != part.texts.end()) set(*known, Kind::kControl);
  }
  for (std::string_view text : kControlTexts) set(text, Kind::kControl);
  for (std::string_view text : kUserDefinedTexts) set(text, Kind::kUserDefined);
  const auto has = [&](std::string_view text) { return vocabulary.find(text) >= 0; };
  if ((has("<|return|>") && (has("<|call|>") || has("<|calls|>"))) ||
      ((has("<|call|>") || has("<|calls|>")) && has("<|flush|>"))) {
    set("<|end|>", Kind::kUserDefined);
  }
  if (has("<|tool_response>")) set("</s>", Kind::kNormal);
  return kinds;
}

/// Special tokens, with the white space some models' tokens swallow (not in the file: known by the
/// model's name).
SpecialTokens find_specials(const gguf::Metadata& metadata, const Vocabulary& vocabulary,
                            const std::vector<Kind>& kinds) {
  std::string name(metadata.string_or("general.name", ""));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const bool phi3 =
      name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
  std::vector<SpecialToken> specials;
  for (std::size_t id = 0; id < kinds.size(); ++id) {
    if (kinds[id] != Kind::kControl && kinds[id] != Kind::kUserDefined &&
        kinds[id] != Kind::kUnknown)
      continue;
    SpecialToken token;
    token.id = static_cast<TokenId>(id);
    token.text = vocabulary.tokens()[id];
    token.only_when_parsing = kinds[id] != Kind::kUserDefined;
    token.strip_right =
        phi3 && token.text != "<unk>" && token.text != "<s>" && token.text != "<|endoftext|>";
    specials.push_back(std::move(token));
  }
  return SpecialTokens(std::move(specials));
}

std::string piece_of(const std::string& text, Kind kind, const WordEncoder& encoder) {
  switch (kind) {
    case Kind::kNormal:
      return encoder.bytes_of(text);
    case Kind::kControl:
    case Kind::kUserDefined:
    case Kind::kUnknown:
      return text;
    case Kind::kByte:
      return std::string(
          1, static_cast<char>(text.size() > 4 ? std::strtol(text.substr(3, 2).c_str(), nullptr, 16)
                                               : 0));
    default:
      return {};
  }
}

/// What a tokenizer model brings along, besides tokens and special tokens.
struct ModelParts {
  std::unique_ptr<WordEncoder> encoder;
  std::string name;     ///< of the pre-tokenizer, if there is one
  std::string content;  ///< all else that decides about ids, for the hash
  // what llama.cpp takes where keys are missing
  bool add_bos = false;
  TokenId bos = -1, eos = -1;
};

const gguf::Value& require_list(const gguf::Metadata& metadata, std::string_view key,
                                gguf::ValueType type, std::string_view what) {
  const gguf::Value* value = metadata.find(key);
  if (!value || !value->is_array() || value->element_type() != type) {
    throw bad_input(fmt::format("{} is missing or no list of {}", key, what), metadata.place,
                    "use a GGUF that carries its tokenizer");
  }
  return *value;
}

ModelParts make_bpe(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  const std::string_view pre = metadata.string_or("tokenizer.ggml.pre", "");
  const PretokenizerSpec* spec = find_pretokenizer(pre);
  if (!spec) {
    throw bad_input(fmt::format("pre-tokenizer '{}' is not supported", pre), metadata.place,
                    "supported are: " + supported_pretokenizers());
  }
  const auto merges =
      require_list(metadata, "tokenizer.ggml.merges", gguf::ValueType::kString, "texts").strings();
  ModelParts parts{.encoder =
                       std::make_unique<BpeEncoder>(vocabulary, merges, *spec, metadata.place),
                   .name = std::string(spec->name),
                   .content = {},
                   .add_bos = spec->add_bos,
                   .bos = spec->has_default_bos ? kLegacyBos : -1,
                   .eos = kLegacyBos};
  for (std::string_view merge : merges)
    parts.content += fmt::format("{} ", merge.size()) + std::string(merge);
  return parts;
}

ModelParts make_sentence_piece(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  const auto numbers =
      require_list(metadata, "tokenizer.ggml.scores", gguf::ValueType::kFloat32, "numbers")
          .numbers();
  if (numbers.size() < vocabulary.size()) {
    throw bad_input(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens",
                                numbers.size(), vocabulary.size()),
                    metadata.place, "convert the model again");
  }
  const std::vector<float> scores(numbers.begin(), numbers.end());
  const bool prefix = metadata.bool_or("tokenizer.ggml.add_space_prefix", true);
  ModelParts parts{.encoder = std::make_unique<SentencePiece>(vocabulary, scores, prefix),
                   .name = prefix ? "prefix" : "no prefix",
                   .content = {},
                   .add_bos = true,
                   .bos = kSentencePieceBos,
                   .eos = kSentencePieceEos};
  parts.content.assign(reinterpret_cast<const char*>(scores.data()),
                       scores.size() * sizeof scores[0]);
  return parts;
}

ModelParts make_parts(std::string_view model, const gguf::Metadata& metadata,
                      const Vocabulary& vocabulary) {
  if (model == "gpt2") return make_bpe(metadata, vocabulary);
  return make_sentence_piece(metadata, vocabulary);
}

/// Refused before the vocabulary is read: the others may not even have one.
void require_known_model(std::string_view model, const std::string& place) {
  if (model == "gpt2" || model == "llama") return;
  const std::string_view known = model == "t5"     ? " (Unigram)"
                                 : model == "bert" ? " (WordPiece)"
                                                   : "";
  throw bad_input(fmt::format("tokenizer model '{}'{} is not supported", model, known), place,
                  "use a model whose tokenizer.ggml.model is gpt2 (byte-level BPE) or llama "
                  "(SentencePiece)");
}

}  // namespace

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  std::vector<Kind> kinds;
  SpecialTokens specials;
  std::unique_ptr<WordEncoder> encoder;
  std::vector<std::string> pieces;  ///< of each token, for decode()
  std::string hash;
  TokenId bos = -1, eos = -1;
  bool add_bos = false, add_eos = false;

  Impl(std::string_view model, const gguf::Metadata& metadata)
      : vocabulary(read_tokens(metadata), metadata.place),
        kinds(correct_kinds(metadata, vocabulary, read_kinds(metadata, vocabulary.tokens()))),
        specials(find_specials(metadata, vocabulary, kinds)) {
    ModelParts parts = make_parts(model, metadata, vocabulary);
    encoder = std::move(parts.encoder);
    add_bos = metadata.bool_or("tokenizer.ggml.add_bos_token", parts.add_bos);
    add_eos = metadata.bool_or("tokenizer.ggml.add_eos_token", false);
    bos = read_special(metadata, "tokenizer.ggml.bos_token_id", add_bos ? parts.bos : -1);
    eos = read_special(metadata, "tokenizer.ggml.eos_token_id", add_eos ? parts.eos : -1);
    if (add_bos && bos < 0) refuse_missing(metadata, "bos");
    if (add_eos && eos < 0) refuse_missing(metadata, "eos");
    Hasher hasher;
    hasher.update(
        fmt::format("{}\n{}\n{} {} {} {}\n", model, parts.name, bos, eos, add_bos, add_eos));
    for (std::size_t id = 0; id < kinds.size(); ++id) {
      const std::string& text = vocabulary.tokens()[id];
      pieces.push_back(piece_of(text, kinds[id], *encoder));
      hasher.update(fmt::format("{} {} ", static_cast<int>(kinds[id]), text.size())).update(text);
    }
    hasher.update(parts.content);
    hash = hasher.hex();
  }

  /// A key that names no token counts as absent, as in llama.cpp.
  TokenId read_special(const gguf::Metadata& metadata, std::string_view key,
                       TokenId fallback) const {
    const std::int64_t id = metadata.int_or(key, -1);
    if (id >= 0 && id < static_cast<std::int64_t>(kinds.size())) return static_cast<TokenId>(id);
    return fallback < static_cast<TokenId>(kinds.size()) ? fallback : -1;
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
  const std::string_view model = metadata.require_string("tokenizer.ggml.model");
  require_known_model(model, metadata.place);
  return Tokenizer(std::make_unique<Impl>(model, metadata));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3);
  if (options.add_special && impl_->add_bos) ids.push_back(impl_->bos);
  bool is_first = true;
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

std::size_t Tokenizer::vocab_size() const { return impl_->kinds.size(); }
TokenId Tokenizer::bos() const { return impl_->bos; }
TokenId Tokenizer::eos() const { return impl_->eos; }
bool Tokenizer::adds_bos() const { return impl_->add_bos; }
TokenId Tokenizer::find(std::string_view token_text) const { return impl_->vocabulary.find(token_text); }
bool Tokenizer::is_special(TokenId id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= impl_->kinds.size()) return false;
  return impl_->kinds[id] == Kind::kControl || impl_->kinds[id] == Kind::kUserDefined;
}
std::string Tokenizer::hash() const { return impl_->hash; }

}  // namespace spectralquant::text
