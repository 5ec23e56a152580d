#include "spectralquant/text/corpus.h"

#include <fmt/format.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/text/conversation.h"
#include "spectralquant/text/foreign_format.h"
#include "spectralquant/text/json_records.h"
#include "spectralquant/text/read_text.h"

namespace spectralquant::text {
namespace {

constexpr const char* kRecordFix =
    R"(a record is {"text": "…"} or {"messages": [{"role": "user", "content": "…"}, …]})";

std::vector<std::string> expand(const std::string& pattern) {
  struct stat status;
  if (pattern.find_first_of("*?[") == std::string::npos || stat(pattern.c_str(), &status) == 0)
    return {pattern};
  glob_t found{};
  const int result = glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<std::string> paths(found.gl_pathv,
                                 found.gl_pathv + (result == 0 ? found.gl_pathc : 0));
  globfree(&found);
  if (paths.empty())
    throw bad_input("no file matches " + pattern, pattern,
                    "check the pattern, and quote it against the shell");
  return paths;
}

/// What to do about a record of fields that mean nothing here.
std::string fix_for(const JsonRecord& record) {
  if (record.contains("instruction") && record.contains("output")) {
    return "as chats: jq -c '{messages: [{role: \"user\", content: ([.instruction, .input // "
           "empty] | map(select(. != \"\")) | join(\"\\n\\n\"))}, {role: \"assistant\", "
           "content: .output}]}'";
  }
  std::string fields;
  for (const auto& [key, value] : record.items()) fields += (fields.empty() ? "" : ", ") + key;
  return fmt::format("{}; its fields are: {}", kRecordFix, fields.empty() ? "none" : fields);
}

Document parse_record(const JsonRecord& record, std::string origin, const ChatFormat& chat,
                      Losses& losses) {
  Document document;
  document.origin = std::move(origin);
  const auto render = [&](const JsonRecord& messages) {
    const std::vector<Message> parsed = parse_messages(messages, document.origin, losses);
    try {
      document.text = chat.render(parsed, &losses.left_out);
    } catch (const Error& error) {  // it knows the model, not the record
      throw bad_input(error.problem(), document.origin, error.fix());
    }
    document.is_chat = true;
  };
  if (record.is_string()) {
    document.text = record.get<std::string>();
    return document;
  }
  if (record.is_array()) {
    render(record);
    return document;
  }
  bool is_known = false;
  if (const auto text = record.find(kTextKey); text != record.end()) {
    is_known = true;
    if (!text->is_null() && !text->is_string())
      throw bad_input("\"text\" is no text", document.origin, kRecordFix);
    if (text->is_string()) document.text = text->get<std::string>();
  }
  for (std::string_view key : kMessageKeys) {
    const auto messages = record.find(key);
    if (messages == record.end()) continue;
    is_known = true;
    if (document.text.empty() && !messages->is_null() &&
        !(messages->is_array() && messages->empty()))
      render(*messages);
  }
  if (!is_known)
    throw bad_input("the record has neither \"text\" nor \"messages\"", document.origin,
                    fix_for(record));
  for (const char* key : {"kind", "source"}) {  // "source" wins
    if (const auto value = record.find(key); value != record.end() && value->is_string())
      document.source = value->get<std::string>();
  }
  return document;
}

/// Appends the documents of one file's text.
void read_documents(std::string text, const std::string& path, const ChatFormat& chat,
                    Corpus& corpus) {
  Losses losses;
  const std::size_t n_before = corpus.documents.size();
  const bool is_json =
      visit_json_records(text, path, [&](const JsonRecord& record, const std::string& origin) {
        Document document = parse_record(record, origin, chat, losses);
        if (document.text.empty()) {
          ++losses.empty_records;  // common in public sets, and nothing to measure
        } else {
          corpus.documents.push_back(std::move(document));
        }
      });
  if (!is_json) {
    if (begins_like_json(text))
      corpus.notes.push_back(path + ": begins like JSON, but is none: taken as one plain text");
    if (begins_like_html(text))
      corpus.notes.push_back(fmt::format(
          "{0}: a web page, taken with its tags; its text alone: pandoc -f html -t plain {1} > {2}",
          path, shell_path(path), shell_path(path + ".txt")));
    corpus.documents.push_back({.text = std::move(text), .origin = path, .source = {}});
  } else if (corpus.documents.size() == n_before) {
    throw bad_input(path + " holds no document with text", path, kRecordFix);
  }
  if (std::string note = losses.to_note(path, chat.name()); !note.empty())
    corpus.notes.push_back(std::move(note));
}

Corpus with_hash(Corpus corpus) {
  Hasher hasher;
  for (const Document& document : corpus.documents)
    hasher.update(fmt::format("{} ", document.text.size())).update(document.text);
  corpus.hash = hasher.hex();
  return corpus;
}

}  // namespace

std::vector<std::string> expand_patterns(const std::vector<std::string>& patterns) {
  std::vector<std::string> paths;
  for (const std::string& pattern : patterns)
    for (std::string& path : expand(pattern)) paths.push_back(std::move(path));
  return paths;
}

Corpus read_corpus(std::string_view json_lines, const std::string& name, const ChatFormat& chat) {
  Corpus corpus;
  read_documents(std::string(json_lines), name, chat, corpus);
  return with_hash(std::move(corpus));
}

Corpus load_corpus(const std::vector<std::string>& patterns, const ChatFormat& chat) {
  Corpus corpus;
  for (const std::string& path : expand_patterns(patterns))
    read_documents(read_text(path), path, chat, corpus);
  if (corpus.documents.empty()) throw bad_input("no text was given", "", "name at least one file");
  return with_hash(std::move(corpus));
}

std::vector<std::vector<TokenId>> encode_documents(const Corpus& corpus, const Tokenizer& tokenizer,
                                                   EncodeOptions options) {
  std::vector<std::vector<TokenId>> ids(corpus.documents.size());
  parallel_for(ids.size(), 0, [&](std::size_t i) {
    const Document& document = corpus.documents[i];
    EncodeOptions chosen = options;
    if (document.is_chat) chosen.parse_special = true;
    ids[i] = tokenizer.encode(document.text, chosen);
  });
  return ids;
}

std::vector<std::vector<TokenId>> cut_windows(const std::vector<std::vector<TokenId>>& documents,
                                              std::size_t window_tokens, TokenId separator,
                                              std::size_t max_windows, const std::string& place) {
  if (window_tokens == 0)
    throw bad_input("a window of 0 tokens", "", "ask for at least 1 token a window");
  std::vector<std::vector<TokenId>> windows;
  std::vector<TokenId> window;
  std::size_t n_tokens = 0;
  const auto take = [&](TokenId id) {
    ++n_tokens;
    window.push_back(id);
    if (window.size() == window_tokens) windows.push_back(std::exchange(window, {}));
    return windows.size() < max_windows;
  };
  bool first = true, more = max_windows > 0;
  for (const std::vector<TokenId>& document : documents) {
    if (!more) break;
    if (document.empty()) continue;
    if (!std::exchange(first, false) && separator >= 0) more = take(separator);
    for (std::size_t i = 0; more && i < document.size(); ++i) more = take(document[i]);
  }
  if (windows.empty() && max_windows > 0) {
    throw bad_input(
        fmt::format("the text has {} tokens, one window needs {}", n_tokens, window_tokens), place,
        "give more text or ask for shorter windows");
  }
  return windows;
}

}  // namespace spectralquant::text
