#include "spectralquant/evaluate/suite.h"

#include <fmt/format.h>

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
  ChatFrame frame{
      tokenizer.encode(whole.substr(0, first)),
      tokenizer.encode(whole.substr(first + 1, second - first - 1), {.add_special = false}),
      tokenizer.encode(whole.substr(second + 1), {.add_special = false})};
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

}  // namespace

SuiteSpec parse_suite(const std::string& text) {
  SuiteSpec spec;
  const auto equals = text.find('=');
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::kBadUsage, "cannot read suite '" + text + "': " + why, "--suite",
                 "write NAME=FILE, NAME=FILE:64x256 (64 windows of 256 tokens), NAME=FILE:c512 (as "
                 "llama-perplexity -c 512) or NAME=FILE:chat512");
  };
  if (equals == std::string::npos || equals == 0) throw refuse("no name before '='");
  spec.name = text.substr(0, equals);
  spec.pattern = text.substr(equals + 1);
  spec.protocol_text = "documents";
  static const std::regex kProtocol(
      R"((.*):(?:(\d{1,9})x(\d{1,9})|(c|chat)(\d{1,9})|(documents)))");
  std::smatch match;
  if (std::regex_match(spec.pattern, match, kProtocol)) {
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
    spec.protocol_text = protocol;
    spec.pattern = pattern;
  }
  if (spec.pattern.empty()) throw refuse("no file after '='");
  return spec;
}

std::string_view unit_name(Protocol protocol) {
  return protocol == Protocol::kDocuments ? "document" : "window";
}

Suite load_suite(const SuiteSpec& spec, const text::Tokenizer& tokenizer,
                 const text::ChatFormat& chat, std::int64_t max_document_tokens) {
  const auto corpus = text::load_corpus({spec.pattern}, chat);
  Suite suite;
  suite.spec = spec;
  suite.notes = corpus.notes;
  // In a chat the frame holds the BOS.
  const auto documents =
      text::encode_documents(corpus, tokenizer, {.add_special = spec.protocol != Protocol::kChat});
  if (spec.protocol == Protocol::kDocuments) {
    suite.items = as_documents(corpus, documents, max_document_tokens);
    suite.n_units = static_cast<std::int64_t>(documents.size());
  } else if (spec.protocol == Protocol::kChat) {
    suite.items = as_chats(spec, corpus, documents, tokenizer, chat);
    suite.n_units = static_cast<std::int64_t>(suite.items.size());
  } else {
    const std::size_t limit = spec.n_windows ? static_cast<std::size_t>(spec.n_windows) : SIZE_MAX;
    auto windows = text::cut_windows(documents, static_cast<std::size_t>(spec.window_tokens),
                                     tokenizer.eos(), limit, spec.pattern);
    if (spec.protocol == Protocol::kStock && tokenizer.adds_bos()) {
      // llama-perplexity puts BOS over the first token of each window
      for (auto& window : windows) window[0] = tokenizer.bos();
    }
    // llama-perplexity counts the predictions made at positions n/2 .. n-2, that is of the tokens
    // n/2+1 .. n-1.
    suite.items = as_windows(std::move(windows),
                             spec.protocol == Protocol::kStock ? spec.window_tokens / 2 + 1 : 1);
    suite.n_units = static_cast<std::int64_t>(suite.items.size());
  }
  Hasher hasher;
  for (const auto& item : suite.items) {
    suite.n_scored += static_cast<std::int64_t>(item.n_scored());
    hasher.update(item.tokens.data(), item.tokens.size() * sizeof(TokenId))
        .update(&item.first_scored, sizeof item.first_scored);
  }
  if (suite.n_scored == 0)
    throw bad_input("suite '" + spec.name + "' has no token to predict", spec.pattern,
                    "its documents have fewer than two tokens each: give longer text");
  suite.hash = hasher.hex();
  return suite;
}

}  // namespace spectralquant::evaluate
