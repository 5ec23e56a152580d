#include "spectralquant/text/corpus.h"

#include <fmt/format.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/core/parallel.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr const char* kLineFix =
    R"(a line is {"text": "…"} or {"messages": [{"role": "user", "content": "…"}, …]})";

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

std::string read_file(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    throw bad_input(fmt::format("cannot read {}: {}", path, std::strerror(errno)), path,
                    "check the path");
  }
  if (S_ISDIR(status.st_mode))
    throw bad_input(path + " is a folder", path,
                    "name files, or a pattern such as " + path + "/*.txt");
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream content;
  if (stream) content << stream.rdbuf();
  if (!stream || stream.bad())
    throw bad_input(fmt::format("cannot read {}: {}", path, std::strerror(errno)), path,
                    "check its permissions");
  std::string text = std::move(content).str();
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (text.empty()) throw bad_input(path + " is empty", path, "give a file with text");
  return text;
}

std::size_t line_of(std::string_view text, std::size_t offset) {
  return 1 + static_cast<std::size_t>(std::count(
                 text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n'));
}

void require_text(std::string_view text, const std::string& path) {
  if (const std::size_t at = text.find('\0'); at != std::string_view::npos) {
    throw bad_input(path + " is binary: it holds a NUL byte",
                    fmt::format("{}:{}", path, line_of(text, at)), "give plain text or JSONL");
  }
  if (const std::size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    throw bad_input(fmt::format("{} is not UTF-8: byte 0x{:02x} at offset {}", path,
                                static_cast<unsigned char>(text[at]), at),
                    fmt::format("{}:{}", path, line_of(text, at)),
                    "convert it, e.g. iconv -f latin1 -t utf-8");
  }
}

/// Content of a message: a text, or a list of parts whose texts are joined.
std::string content_of(const Json& content, const std::string& origin) {
  if (content.is_string()) return content.get<std::string>();
  if (content.is_null()) return {};  // a turn that only calls tools
  std::string text;
  for (const Json& part : content.is_array() ? content : Json::array({nullptr})) {
    if (!part.is_object() || !part.contains("text") || !part["text"].is_string()) {
      throw bad_input("the content of a message is no text", origin, kLineFix);
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

std::vector<Message> messages_of(const Json& list, const std::string& origin) {
  if (!list.is_array() || list.empty())
    throw bad_input("\"messages\" is no list of messages", origin, kLineFix);
  std::vector<Message> messages;
  for (const Json& item : list) {
    if (!item.is_object() || !item.contains("role") || !item["role"].is_string() ||
        !item.contains("content")) {
      throw bad_input("a message lacks \"role\" or \"content\"", origin, kLineFix);
    }
    messages.push_back({item["role"].get<std::string>(), content_of(item["content"], origin)});
  }
  return messages;
}

Document parse_line(std::string_view line, std::string origin, const ChatFormat& chat) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    throw bad_input(json.is_discarded() ? "the line is no JSON" : "the line is no JSON object",
                    origin, kLineFix);
  Document document;
  if (const auto text = json.find("text"); text != json.end()) {
    if (!text->is_string()) throw bad_input("\"text\" is no text", origin, kLineFix);
    document.text = text->get<std::string>();
  } else if (const auto messages = json.find("messages"); messages != json.end()) {
    document.text = chat.render(messages_of(*messages, origin));
    document.is_chat = true;
  } else {
    throw bad_input("the line has neither \"text\" nor \"messages\"", origin, kLineFix);
  }
  for (const char* key : {"kind", "source"}) {  // "source" wins
    if (const auto value = json.find(key); value != json.end() && value->is_string())
      document.source = value->get<std::string>();
  }
  document.origin = std::move(origin);
  return document;
}

void read_jsonl(std::string_view text, const std::string& path, const ChatFormat& chat,
                std::vector<Document>& documents) {
  std::size_t n_documents = 0, line_number = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = text.substr(start, end - start);
    start = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Document document = parse_line(line, fmt::format("{}:{}", path, line_number), chat);
    if (document.text.empty()) continue;  // common in public sets, and nothing to measure
    documents.push_back(std::move(document));
    ++n_documents;
  }
  if (n_documents == 0) throw bad_input(path + " holds no document with text", path, kLineFix);
}

}  // namespace

std::vector<std::string> expand_patterns(const std::vector<std::string>& patterns) {
  std::vector<std::string> paths;
  for (const std::string& pattern : patterns)
    for (std::string& path : expand(pattern)) paths.push_back(std::move(path));
  return paths;
}

Corpus load_corpus(const std::vector<std::string>& patterns, const ChatFormat& chat) {
  Corpus corpus;
  for (const std::string& path : expand_patterns(patterns)) {
    std::string text = read_file(path);
    require_text(text, path);
    if (path.ends_with(".jsonl")) {
      read_jsonl(text, path, chat, corpus.documents);
    } else {
      corpus.documents.push_back({.text = std::move(text), .origin = path, .source = {}});
    }
  }
  if (corpus.documents.empty())
    throw bad_input("no text was given", "", "name at least one .txt or .jsonl file");
  Hasher hasher;
  for (const Document& document : corpus.documents)
    hasher.update(fmt::format("{} ", document.text.size())).update(document.text);
  corpus.hash = hasher.hex();
  return corpus;
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
