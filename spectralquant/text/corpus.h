#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spectralquant/text/chat.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::text {

/// One document of a corpus, chat messages already rendered.
struct Document {
  std::string text;
  std::string origin;    ///< "file.jsonl:12", "file.json, item 3"; for messages
  std::string source;    ///< the record's field "source" or "kind", "" if absent
  bool is_chat = false;  ///< rendered from messages
};

struct Corpus {
  std::vector<Document> documents;
  std::string hash;                     ///< of all document texts in order
  std::vector<std::string> notes = {};  ///< for the user: what was left out of which file
};

/// The files that patterns with * ? [ mean, sorted; a name of an existing file means that file.
///
/// Errors   Error(kBadInput) if nothing matches a pattern.
std::vector<std::string> expand_patterns(const std::vector<std::string>& patterns);

/// Reads plain texts (one document each) and JSON: lines, an array, or an object around an array.
///
/// What a file is, its content tells (json_records.h, read_text.h). A record has `text`, or
/// `messages` (`conversations`) that `chat` renders. Records without text are skipped. Patterns are
/// expanded.
/// Errors   Error(kBadInput) with file and line: nothing matches a pattern; all that read_text(),
///          visit_json_records() and parse_messages() refuse; a record with neither text nor
///          messages; chats where the model's chat format is not known; a file without text.
Corpus load_corpus(const std::vector<std::string>& patterns, const ChatFormat& chat);

/// The same from a text in memory, JSON lines. name: stands for the file in messages.
Corpus read_corpus(std::string_view json_lines, const std::string& name, const ChatFormat& chat);

/// Tokens of each document.
///
/// In a chat special tokens are always parsed, because its markers are some; parse_special decides
/// for all other documents.
std::vector<std::vector<TokenId>> encode_documents(const Corpus& corpus, const Tokenizer& tokenizer,
                                                   EncodeOptions options = {});

/// Joins tokenized documents (an EOS between two, when the model has one) and cuts the stream into
/// windows of exactly window_tokens; the rest that fills no window is dropped. place: the files,
/// for the message.
///
/// Errors   Error(kBadInput) if the text does not fill one window: says how many tokens there are
///          and are needed.
std::vector<std::vector<TokenId>> cut_windows(const std::vector<std::vector<TokenId>>& documents,
                                              std::size_t window_tokens, TokenId separator,
                                              std::size_t max_windows = SIZE_MAX,
                                              const std::string& place = {});

}  // namespace spectralquant::text
