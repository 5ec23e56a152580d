#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/corpus.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::evaluate {

/// How a text becomes scored positions.
enum class Protocol {
  /// every document by itself, all its tokens but the first predicted; mean over tokens
  kDocuments,
  /// "64x256": the first n windows of w tokens of the joined text, all positions but the first
  kWindows,
  /// "c512": llama-perplexity's own: windows of w, only the second half counted, its BOS rule
  kStock,
  /// "chat512": windows of w in the model's chat markers: half of the text is the user's turn, the
  /// scored half the answer
  kChat,
};

/// NAME=FILE[:PROTOCOL]
struct SuiteSpec {
  std::string name;
  std::string pattern;  ///< file or glob
  Protocol protocol = Protocol::kDocuments;
  std::int64_t n_windows = 0;      ///< 0: all
  std::int64_t window_tokens = 0;  ///< kWindows, kStock, kChat
  std::string protocol_text;       ///< "documents", "64x256", "c512", "chat512"
};

/// Errors   Error(kBadUsage) with the grammar when the text does not parse.
SuiteSpec parse_suite(const std::string& text);

/// One sequence to be run, and which of its predictions count.
struct Item {
  std::vector<text::TokenId> tokens;
  std::int64_t first_scored = 1;  ///< predictions of tokens[first_scored ..] count
  std::int64_t document = 0;      ///< unit of the bootstrap: index of the document or window
  /// "texts.jsonl:12", "texts.jsonl:12, from token 4096", "window 7"
  std::string place;

  std::size_t n_scored() const { return tokens.size() - static_cast<std::size_t>(first_scored); }
};

struct Suite {
  SuiteSpec spec;
  std::vector<Item> items;
  std::int64_t n_units = 0;             ///< documents or windows
  std::int64_t n_scored = 0;            ///< predictions that count
  std::string hash;                     ///< of tokens and protocol
  std::vector<std::string> notes = {};  ///< of its corpus: what was left out of which file
};

/// "document" or "window": what a unit of the bootstrap is.
std::string_view unit_name(Protocol protocol);

/// Tokenizes and cuts. Documents longer than max_document_tokens are cut into pieces of that length
/// (said in docs/evaluation.md).
/// Errors   Error(kBadInput): text shorter than a window, empty, binary; kChat: a text that is a
///          chat already.
Suite load_suite(const SuiteSpec& spec, const text::Tokenizer& tokenizer,
                 const text::ChatFormat& chat, std::int64_t max_document_tokens = 4096);

}  // namespace spectralquant::evaluate
