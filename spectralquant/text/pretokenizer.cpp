#include "spectralquant/text/pretokenizer.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <limits>

#include "spectralquant/core/error.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

// Folded bytes: ASCII stands for itself, any other code point for its class. A second set of
// letters, marks and so on stands for the code points \p{K} means.
constexpr unsigned char kFoldedOther = 0x80;
constexpr unsigned char kKanaOrIdeograph = 0x10;
// any non-ASCII white space; the patterns tell only \r, \n and ' ' apart
constexpr char kFoldedSpace = '\v';

unsigned char folded_class(CharClass kind) {
  switch (kind) {
    case CharClass::kLetter:
      return 0x81;
    case CharClass::kNumber:
      return 0x82;
    case CharClass::kMark:
      return 0x83;
    case CharClass::kPunctuation:
      return 0x84;
    case CharClass::kSymbol:
      return 0x85;
    default:
      return kFoldedOther;
  }
}

char fold(char32_t c) {
  const CharClass kind = class_of(c);
  if (kind == CharClass::kSpace) return kFoldedSpace;
  const bool in_k = (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
  return static_cast<char>(folded_class(kind) | (in_k ? kKanaOrIdeograph : 0));
}

std::string fold(std::string_view text) {
  std::string folded;
  folded.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    if (static_cast<unsigned char>(text[position]) < 0x80) {
      folded += text[position++];
    } else {
      folded += fold(next_code_point(text, position));
    }
  }
  return folded;
}

/// Inside of a byte class that stands for \p{name}.
std::string byte_class(char name) {
  switch (name) {
    case 'L':
      return "A-Za-z\x81\x91";
    case 'A':
      return "\x81\x91";
    case 'N':
      return "0-9\x82\x92";
    case 'M':
      return "\x83\x93";
    case 'P':
      return "!-#%-*,-/:;?@\\[\\\\\\]_{}\x84\x94";
    case 'S':
      return "$+<=>\\^`|~\x85\x95";
    case 'K':
      return "\x90-\x95";
    default:
      throw bad_input(fmt::format("no byte class for \\p{{{}}}", name));
  }
}

/// The pattern over folded bytes: \p{X} becomes a byte class.
std::string to_byte_pattern(std::string_view pattern) {
  std::string out;
  bool inside = false;  // of [...]
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.substr(i, 3) == "\\p{") {
      const std::string bytes = byte_class(pattern[i + 3]);
      out += inside ? bytes : "[" + bytes + "]";
      i += 4;
    } else if (pattern[i] == '\\') {
      out += pattern[i];
      out += pattern[++i];
    } else {
      if (pattern[i] == '[') inside = true;
      if (pattern[i] == ']') inside = false;
      out += pattern[i];
    }
  }
  return out;
}

struct MatchDataFree {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct Pretokenizer::Pattern {
  std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code;
  std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context;

  explicit Pattern(std::string_view pattern)
      : code(nullptr, pcre2_code_free), context(nullptr, pcre2_match_context_free) {
    const std::string bytes = to_byte_pattern(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(bytes.data()), bytes.size(), 0, &error,
                             &offset, nullptr));
    if (!code)
      throw Error(ErrorCode::kFailed,
                  fmt::format("PCRE2 error {} at offset {} of pattern {}", error, offset, pattern));
    // without JIT the same matches come out, more slowly
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    context.reset(pcre2_match_context_create(nullptr));
    // Runs of white space are gone through character by character; the default limit would end them
    // at 10 MB.
    pcre2_set_match_limit(context.get(), std::numeric_limits<std::uint32_t>::max());
    pcre2_set_heap_limit(context.get(), std::numeric_limits<std::uint32_t>::max());
  }

  /// Appends the lengths of the matches in `piece` and of the gaps between them.
  void split(std::string_view piece, pcre2_match_data* data,
             std::vector<std::size_t>& lengths) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(piece.data());
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data);
    std::size_t done = 0;
    while (done < piece.size()) {
      const int result = pcre2_match(code.get(), subject, piece.size(), done, PCRE2_NO_UTF_CHECK,
                                     data, context.get());
      if (result == PCRE2_ERROR_NOMATCH || (result > 0 && found[1] == found[0])) break;
      if (result < 0)
        throw Error(ErrorCode::kFailed, fmt::format("PCRE2 error {} while splitting {} characters",
                                                    result, piece.size()));
      if (found[0] > done) lengths.push_back(found[0] - done);
      lengths.push_back(found[1] - found[0]);
      done = found[1];
    }
    if (done < piece.size()) lengths.push_back(piece.size() - done);
  }
};

Pretokenizer::Pretokenizer(const PretokenizerSpec& spec) {
  for (std::string_view pattern : spec.patterns) patterns_.emplace_back(pattern);
}
Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;

std::vector<std::size_t> Pretokenizer::split(std::string_view text) const {
  const std::string folded = fold(text);
  std::unique_ptr<pcre2_match_data, MatchDataFree> data(pcre2_match_data_create(1, nullptr));
  std::vector<std::size_t> lengths{folded.size()};
  for (const Pattern& pattern : patterns_) {
    std::vector<std::size_t> pieces;
    std::size_t start = 0;
    for (std::size_t length : lengths) {
      pattern.split(std::string_view(folded).substr(start, length), data.get(), pieces);
      start += length;
    }
    lengths = std::move(pieces);
  }
  if (folded.size() == text.size()) return lengths;  // ASCII: characters are bytes
  std::size_t position = 0;
  for (std::size_t& length : lengths) {
    const std::size_t start = position;
    for (; length > 0; --length)
      position += utf8_length(static_cast<unsigned char>(text[position]));
    length = position - start;
  }
  return lengths;
}

}  // namespace spectralquant::text
