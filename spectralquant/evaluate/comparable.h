#pragma once
#include <string>
#include <vector>

#include "spectralquant/gguf/metadata.h"

namespace spectralquant::evaluate {

/// Refuses a candidate whose tokens are not the reference's, and tells what else its tokenizer says
/// otherwise.
///
/// Comparable are files with the same tokens in the same order, the same merges and the same
/// pre-tokenizer, or for SentencePiece the same scores. Everything is scored on the reference's
/// tokens, so ids of EOS, BOS or padding, added tokens and token types of a candidate play no part:
/// where they differ, that is a note.
///
/// Returns  notes for people: "eos_token_id is 5, the reference's is 3".
/// Errors   Error(kBadInput) at the candidate: another tokenizer, with the first difference.
std::vector<std::string> compare_tokenizers(const gguf::Metadata& reference,
                                            const gguf::Metadata& candidate);

}  // namespace spectralquant::evaluate
