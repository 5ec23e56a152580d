#pragma once
#include <cstdint>
#include <vector>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::text {

class Vocabulary;

/// What a token is, numbered as in tokenizer.ggml.token_type.
enum class TokenKind : std::uint8_t {
  kUndefined = 0,
  kNormal,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte
};

/// The kinds of all tokens, by id: those of the file, corrected by the tokens' texts as llama.cpp
/// does it.
///
/// Errors   Error(kBadInput) for a list that is too short.
std::vector<TokenKind> read_token_kinds(const gguf::Metadata& metadata,
                                        const Vocabulary& vocabulary);

}  // namespace spectralquant::text
