#include "spectralquant/evaluate/suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>

#include "spectralquant/core/error.h"
#include "spectralquant/core/hash.h"

namespace spectralquant::evaluate {
namespace {

using text::TokenId;
using Tokens = std::vector<TokenId>;

std::vector<Item> as_documents(const text::Corpus& corpus, const std::vector<Tokens>& documents,
                               std::int64_t max_tokens) {
  std::vector<Item> items;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    const auto& tokens = documents[d];
    for (std::size_t begin = 0; begin + 1 < tokens.size(); begin += max_tokens) {
      const std::size_t end = std::min(tokens.size(), begin + static_cast<std::size_t>(max_tokens));
      if (end - begin < 2) break;  // a rest of one token predicts nothing
      const auto& origin = corpus.documents[d].origin;
      items.push_back(
          {.tokens = Tokens(tokens.begin() + begin, tokens.begin() + end),
           .first_scored = 1,
           .document = static_cast<std::int64_t>(d),
           .place = begin == 0 ? origin : fmt::format("{}, from token {}", origin, begin)});
    }
  }
  return items;
}

std::vector<Item> as_windows(std::vector<Tokens> windows, std::int64_t first_scored) {
  std::vector<Item> items;
  for (std::size_t i = 0; i < windows.size(); ++i)
    items.push_back({.tokens = std::move(windows[i]),
                     .first_scored = first_scored,
                     .document = static_cast<std::int64_t>(i),
                     .place = fmt::format("window {}", i + 1)});
  return items;
}

/// The model's markers around a question and its answer, as tokens.
struct ChatFrame {
  Tokens before, between, after;
  std::size_t size() const { return before.size() + between.size() + after.size(); }
};

ChatFrame make_chat_frame(const text::Tokenizer& tokenizer, const text::ChatFormat& chat) {
  // stand in for the texts; no template holds them
  const std::string question = "\x01", answer = "\x02";
  const std::string whole = chat.render({{"user", question}, {"assistant", answer}});
  const auto first = whole.find(question), second = whole.find(answer);
  const text::EncodeOptions behind_text{.add_special = false, .follows_text = true};
  ChatFrame frame{tokenizer.encode(whole.substr(0, first)),
                  tokenizer.encode(whole.substr(first + 1, second - first - 1), behind_text),
                  tokenizer.encode(whole.substr(second + 1), behind_text)};
  return frame;
}

/// Windows of the joined text in chat markers: the first half asks, the second half answers. The
/// answer and what ends its turn are scored.
std::vector<Item> as_chats(const SuiteSpec& spec, const text::Corpus& corpus,
                           const std::vector<Tokens>& documents, const text::Tokenizer& tokenizer,
                           const text::ChatFormat& chat) {
  for (const auto& document : corpus.documents)
    if (document.is_chat)
      throw bad_input("the text is a chat already", document.origin,
                      "use " + spec.name + "=" + spec.pattern + " without a protocol");
  const auto frame = make_chat_frame(tokenizer, chat);
  const auto window = static_cast<std::size_t>(spec.window_tokens);
  if (window < frame.size() + 4)
    throw bad_input(
        fmt::format("a window of {} tokens; the chat's markers take {}", window, frame.size()),
        spec.pattern, "use longer windows");
  std::vector<Tokens> windows;
  const std::size_t n_text = window - frame.size(), n_question = n_text / 2;
  for (const auto& part : text::cut_windows(documents, n_text, tokenizer.eos(), SIZE_MAX)) {
    Tokens tokens = frame.before;
    tokens.insert(tokens.end(), part.begin(), part.begin() + n_question);
    tokens.insert(tokens.end(), frame.between.begin(), frame.between.end());
    tokens.insert(tokens.end(), part.begin() + n_question, part.end());
    tokens.insert(tokens.end(), frame.after.begin(), frame.after.end());
    windows.push_back(std::move(tokens));
  }
  return as_windows(std::move(windows), static_cast<std::int64_t>(frame.before.size() + n_question +
                                                                  frame.between.size()));
}

/// The suite's documents. llama-perplexity drops a line's end at the end of its file.
text::Corpus load_text(const SuiteSpec& spec, const text::ChatFormat& chat) {
  auto corpus = text::load_corpus({spec.pattern}, chat);
  auto& last = corpus.documents.back();
  if (spec.protocol == Protocol::kStock && corpus.documents.size() == 1 && !last.is_chat &&
      last.text.ends_with('\n'))
    last.text.pop_back();
  return corpus;
}

std::int64_t count_special(const std::vector<Tokens>& documents, const text::Tokenizer& tokenizer) {
  std::int64_t n = 0;
  for (const auto& tokens : documents)
    n += std::count_if(tokens.begin(), tokens.end(),
                       [&](TokenId id) { return tokenizer.is_special(id); });
  return n;
}

}  // namespace

SuiteSpec parse_suite(const std::string& text) {
  SuiteSpec spec;
  const auto equals = text.find('=');
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::kBadUsage, "cannot read suite '" + text + "': " + why, "--suite",
                 "write NAME=FILE, NAME=FILE:64x256 (64 windows of 256 tokens), NAME=FILE:c512 (as "
                 "llama-perplexity -c 512) or NAME=FILE:chat512; with +special at the end, special "
                 "tokens in plain text are parsed");
  };
  if (equals == std::string::npos || equals == 0) throw refuse("no name before '='");
  spec.name = text.substr(0, equals);
  spec.pattern = text.substr(equals + 1);
  spec.protocol_text = "documents";
  static const std::regex kProtocol(
      R"((.*):(?:(\d{1,9})x(\d{1,9})|(c|chat)(\d{1,9})|(documents))?(\+special)?)");
  std::smatch match;
  if (std::regex_match(spec.pattern, match, kProtocol) && !spec.pattern.ends_with(':')) {
    const std::string pattern = match[1], protocol = spec.pattern.substr(pattern.size() + 1);
    if (match[2].matched) {
      spec.protocol = Protocol::kWindows;
      spec.n_windows = std::stoll(match[2]);
      spec.window_tokens = std::stoll(match[3]);
      if (spec.n_windows < 1 || spec.window_tokens < 2)
        throw refuse("needs at least one window of two tokens");
    } else if (match[4].matched) {
      spec.protocol = match[4] == "c" ? Protocol::kStock : Protocol::kChat;
      spec.window_tokens = std::stoll(match[5]);
      if (spec.window_tokens < 4) throw refuse("needs windows of at least four tokens");
    }
    spec.parse_special = match[7].matched;
    spec.protocol_text = protocol.starts_with('+') ? "documents" + protocol : protocol;
    spec.pattern = pattern;
  }
  if (spec.pattern.empty()) throw refuse("no file after '='");
  return spec;
}

std::string_view unit_name(Protocol protocol) {
  return protocol == Protocol::kDocuments ? "document" : "window";
}

void complete(Suite& suite, std::int64_t n_units) {
  suite.n_units = n_units;
  Hasher hasher;
  for (const auto& item : suite.items) {
    suite.n_scored += static_cast<std::int64_t>(item.n_scored());
    hasher.update(item.tokens.data(), item.tokens.size() * sizeof(TokenId))
        .update(&item.first_scored, sizeof item.first_scored);
  }
  suite.hash = hasher.hex();
}

std::vector<Item> as_stock_windows(std::vector<Tokens> windows, const text::Tokenizer& tokenizer) {
  const auto n = static_cast<std::int64_t>(windows.at(0).size());
  if (tokenizer.adds_bos())
    for (auto& window : windows) window[0] = tokenizer.bos();
  return as_windows(std::move(windows), n / 2 + 1);
}

Suite load_suite(const SuiteSpec& spec, const text::Tokenizer& tokenizer,
                 const text::ChatFormat& chat, std::int64_t max_document_tokens) {
  const auto corpus = load_text(spec, chat);
  Suite suite;
  suite.spec = spec;
  suite.notes = corpus.notes;
  // Around a text of kChat the frame holds the BOS.
  const bool add_special = spec.protocol != Protocol::kChat;
  const auto documents =
      text::encode_documents(corpus, tokenizer, {add_special, spec.parse_special});
  if (!spec.parse_special)
    suite.n_unparsed_special =
        count_special(text::encode_documents(corpus, tokenizer, {add_special, true}), tokenizer) -
        count_special(documents, tokenizer);
  switch (spec.protocol) {
    case Protocol::kDocuments:
      suite.items = as_documents(corpus, documents, max_document_tokens);
      break;
    case Protocol::kChat:
      suite.items = as_chats(spec, corpus, documents, tokenizer, chat);
      break;
    case Protocol::kWindows:
      suite.items =
          as_windows(text::cut_windows(documents, static_cast<std::size_t>(spec.window_tokens),
                                       tokenizer.eos(), static_cast<std::size_t>(spec.n_windows),
                                       spec.pattern),
                     1);
      break;
    case Protocol::kStock:
      suite.items = as_stock_windows(
          text::cut_windows(documents, static_cast<std::size_t>(spec.window_tokens),
                            tokenizer.eos(), SIZE_MAX, spec.pattern),
          tokenizer);
      break;
  }
  complete(suite,
           static_cast<std::int64_t>(spec.protocol == Protocol::kDocuments ? documents.size()
                                                                           : suite.items.size()));
  if (suite.n_scored == 0)
    throw bad_input("suite '" + spec.name + "' has no token to predict", spec.pattern,
                    "its documents have fewer than two tokens each: give longer text");
  return suite;
}

}  // namespace spectralquant::evaluate
