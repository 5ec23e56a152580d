#include "spectralquant/text/special_tokens.h"

#include <algorithm>

namespace spectralquant::text {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }  // isspace() of the C locale

std::string_view trim_right(std::string_view text) {
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view trim_left(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  return text;
}

}  // namespace

SpecialTokens::SpecialTokens(std::vector<SpecialToken> tokens) : tokens_(std::move(tokens)) {
  // llama.cpp's sort, on the same sequence: so tokens of one length get the same order.
  std::sort(tokens_.begin(), tokens_.end(), [](const SpecialToken& a, const SpecialToken& b) {
    return a.text.size() > b.text.size();
  });
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    by_first_byte_[static_cast<unsigned char>(tokens_[i].text[0])].push_back(i);
}

/// Indices of the tokens that are in the text at all: one pass, so that a thousand unused ones cost
/// nothing.
std::vector<std::size_t> SpecialTokens::occurring(std::string_view text, bool parse_special) const {
  std::vector<bool> seen(tokens_.size(), false);
  for (std::size_t position = 0; position < text.size(); ++position) {
    for (std::size_t i : by_first_byte_[static_cast<unsigned char>(text[position])]) {
      if (!seen[i] && text.substr(position, tokens_[i].text.size()) == tokens_[i].text)
        seen[i] = true;
    }
  }
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (seen[i] && (parse_special || !tokens_[i].only_when_parsing)) found.push_back(i);
  }
  return found;
}

std::vector<Fragment> SpecialTokens::partition(std::string_view text, bool parse_special) const {
  std::vector<Fragment> fragments;
  if (!text.empty()) fragments.push_back({-1, text});
  for (std::size_t index : occurring(text, parse_special)) {
    const SpecialToken& token = tokens_[index];
    std::vector<Fragment> next;
    for (const Fragment& fragment : fragments) {
      std::string_view rest = fragment.text;
      for (std::size_t at;
           fragment.id < 0 && (at = rest.find(token.text)) != std::string_view::npos;) {
        std::string_view before = rest.substr(0, at);
        if (token.strip_left) before = trim_right(before);
        if (!before.empty()) next.push_back({-1, before});
        next.push_back({token.id, token.text});
        rest = rest.substr(at + token.text.size());
        if (token.strip_right) rest = trim_left(rest);
      }
      if (fragment.id >= 0) {
        next.push_back(fragment);
      } else if (!rest.empty()) {
        next.push_back({-1, rest});
      }
    }
    fragments = std::move(next);
  }
  return fragments;
}

}  // namespace spectralquant::text
