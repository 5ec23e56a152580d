#include "spectralquant/text/word_encoder.h"

#include <fmt/format.h>

#include "spectralquant/core/error.h"
#include "spectralquant/text/bpe_encoder.h"
#include "spectralquant/text/sentence_piece.h"

namespace spectralquant::text {
namespace {

constexpr TokenId kSentencePieceBos = 1, kSentencePieceEos = 2;  ///< llama.cpp's
constexpr TokenId kLegacyBos = 11;  ///< llama.cpp's BOS and EOS of a BPE model that names none

constexpr std::string_view kGemma4 = "gemma4";  ///< a model and a pre-tokenizer

std::vector<std::string_view> read_merges(const gguf::Metadata& metadata, bool needs_some) {
  const gguf::Value* value = metadata.find("tokenizer.ggml.merges");
  if (!value && !needs_some) return {};
  if (!value || !value->is_array() || value->element_type() != gguf::ValueType::kString) {
    throw bad_input("tokenizer.ggml.merges is missing or no list of texts", metadata.place,
                    "use a GGUF that carries its tokenizer");
  }
  return value->strings();
}

TokenizerModel make_bpe(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  const bool is_gemma4 = metadata.require_string("tokenizer.ggml.model") == kGemma4;
  const std::string_view pre = is_gemma4 ? kGemma4 : metadata.string_or("tokenizer.ggml.pre", "");
  const PretokenizerSpec* spec = find_pretokenizer(pre);
  if (!spec) {
    throw bad_input(fmt::format("pre-tokenizer '{}' is not supported", pre), metadata.place,
                    "supported are: " + supported_pretokenizers());
  }
  return {.encoder = std::make_unique<BpeEncoder>(vocabulary,
                                                  read_merges(metadata, spec->needs_merges), *spec),
          .add_bos = spec->add_bos,
          .always_adds_bos = spec->always_adds_bos,
          .bos = spec->has_default_bos && !is_gemma4 ? kLegacyBos : -1,
          .eos = is_gemma4 ? -1 : kLegacyBos};
}

/// llama.cpp takes 0 for every token where there are none.
std::vector<float> read_scores(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  const gguf::Value* value = metadata.find("tokenizer.ggml.scores");
  if (!value) return std::vector<float>(vocabulary.size());
  if (!value->is_array() || (value->element_type() != gguf::ValueType::kFloat32 &&
                             value->element_type() != gguf::ValueType::kInt32)) {
    throw bad_input("tokenizer.ggml.scores is no list of float32 or int32 numbers", metadata.place,
                    "convert the model again");
  }
  const std::vector<double> numbers = value->numbers();
  if (numbers.size() < vocabulary.size()) {
    throw bad_input(fmt::format("tokenizer.ggml.scores has {} entries for {} tokens",
                                numbers.size(), vocabulary.size()),
                    metadata.place, "convert the model again");
  }
  return {numbers.begin(), numbers.end()};
}

TokenizerModel make_sentence_piece(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  return {.encoder = std::make_unique<SentencePiece>(
              vocabulary, read_scores(metadata, vocabulary),
              metadata.bool_or("tokenizer.ggml.add_space_prefix", true)),
          .add_bos = true,
          .bos = kSentencePieceBos,
          .eos = kSentencePieceEos};
}

}  // namespace

void require_known_model(const gguf::Metadata& metadata) {
  const std::string_view model = metadata.require_string("tokenizer.ggml.model");
  if (model == "gpt2" || model == "llama" || model == kGemma4) return;
  const std::string_view known = model == "t5"     ? " (Unigram)"
                                 : model == "bert" ? " (WordPiece)"
                                                   : "";
  throw bad_input(fmt::format("tokenizer model '{}'{} is not supported", model, known),
                  metadata.place,
                  "use a model whose tokenizer.ggml.model is gpt2 or gemma4 (BPE), or llama "
                  "(SentencePiece)");
}

TokenizerModel make_tokenizer_model(const gguf::Metadata& metadata, const Vocabulary& vocabulary) {
  return metadata.require_string("tokenizer.ggml.model") == "llama"
             ? make_sentence_piece(metadata, vocabulary)
             : make_bpe(metadata, vocabulary);
}

}  // namespace spectralquant::text
