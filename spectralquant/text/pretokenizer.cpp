#include "spectralquant/text/pretokenizer.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "spectralquant/core/error.h"
#include "spectralquant/text/unicode.h"

namespace spectralquant::text {
namespace {

// Folded bytes: ASCII stands for itself, any other code point for its class (3 bits) and the sets
// of the pattern it is in (4 bits).
constexpr unsigned kFolded = 0x80, kClasses = 8, kMostSets = 4, kSetsShift = 3;
// any non-ASCII white space; the patterns tell only \r, \n and ' ' apart
constexpr char kFoldedSpace = '\v';

unsigned number_of(CharClass kind) {
  switch (kind) {
    case CharClass::kLetter:
      return 1;
    case CharClass::kNumber:
      return 2;
    case CharClass::kMark:
      return 3;
    case CharClass::kPunctuation:
      return 4;
    case CharClass::kSymbol:
      return 5;
    default:
      return 0;
  }
}

struct CodeRange {
  char32_t first, last;
};

/// Code points that a pattern names one by one.
class CodeSet {
 public:
  explicit CodeSet(std::vector<CodeRange> ranges) {
    std::sort(ranges.begin(), ranges.end(),
              [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
    for (const CodeRange& range : ranges) {
      if (ranges_.empty() || range.first > ranges_.back().last) {
        ranges_.push_back(range);
      } else {
        ranges_.back().last = std::max(ranges_.back().last, range.last);
      }
    }
  }
  bool contains(char32_t c) const {
    const auto at =
        std::lower_bound(ranges_.begin(), ranges_.end(), c,
                         [](const CodeRange& range, char32_t x) { return range.last < x; });
    return at != ranges_.end() && at->first <= c;
  }

 private:
  std::vector<CodeRange> ranges_;  ///< ascending, apart from each other
};

std::string fold(std::string_view text, const std::vector<CodeSet>& sets) {
  std::string folded;
  folded.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    if (static_cast<unsigned char>(text[position]) < 0x80) {
      folded += text[position++];
      continue;
    }
    const char32_t c = next_code_point(text, position);
    const CharClass kind = class_of(c);
    unsigned byte = kFolded | number_of(kind);
    for (std::size_t i = 0; i < sets.size(); ++i)
      if (sets[i].contains(c)) byte |= 1u << (kSetsShift + i);
    folded += kind == CharClass::kSpace ? kFoldedSpace : static_cast<char>(byte);
  }
  return folded;
}

/// The folded bytes of a class, in whatever sets.
std::string bytes_of_class(CharClass kind) {
  std::string bytes;
  for (unsigned sets = 0; sets < 1u << kMostSets; ++sets)
    bytes += static_cast<char>(kFolded | sets << kSetsShift | number_of(kind));
  return bytes;
}

/// The folded bytes of the code points in a set, of whatever class.
std::string bytes_of_set(std::size_t index) {
  std::string bytes;
  for (unsigned byte = kFolded; byte < kFolded + (kClasses << kMostSets); ++byte)
    if (byte >> (kSetsShift + index) & 1) bytes += static_cast<char>(byte);
  return bytes;
}

/// Inside of a byte class that stands for \p{name}.
std::string byte_class(char name) {
  switch (name) {
    case 'L':
      return "A-Za-z" + bytes_of_class(CharClass::kLetter);
    case 'A':
      return bytes_of_class(CharClass::kLetter);
    case 'N':
      return "0-9" + bytes_of_class(CharClass::kNumber);
    case 'M':
      return bytes_of_class(CharClass::kMark);
    case 'P':
      return "!-#%-*,-/:;?@\\[\\\\\\]_{}" + bytes_of_class(CharClass::kPunctuation);
    case 'S':
      return "$+<=>\\^`|~" + bytes_of_class(CharClass::kSymbol);
    default:
      throw std::logic_error(fmt::format("no byte class for \\p{{{}}}", name));
  }
}

/// Reads "\x{4E00}" at pattern[i] and moves i behind it.
char32_t read_code_point(std::string_view pattern, std::size_t& i) {
  const std::size_t end = pattern.find('}', i);
  const std::string digits(pattern.substr(i + 3, end - i - 3));
  i = end + 1;
  return static_cast<char32_t>(std::stoul(digits, nullptr, 16));
}

/// Reads ranges of code points at pattern[i] as long as there are some.
std::vector<CodeRange> read_ranges(std::string_view pattern, std::size_t& i) {
  std::vector<CodeRange> ranges;
  while (pattern.substr(i, 3) == "\\x{") {
    const char32_t first = read_code_point(pattern, i);
    char32_t last = first;
    if (pattern.substr(i, 4) == "-\\x{") last = read_code_point(pattern, ++i);
    ranges.push_back({first, last});
  }
  return ranges;
}

/// The pattern over folded bytes: \p{X} becomes a byte class, code points become one of the sets.
std::string to_byte_pattern(std::string_view pattern, std::vector<CodeSet>& sets) {
  std::string out;
  bool inside = false;  // of [...]
  for (std::size_t i = 0; i < pattern.size();) {
    if (pattern.substr(i, 3) == "\\p{") {
      const std::string bytes = byte_class(pattern[i + 3]);
      out += inside ? bytes : "[" + bytes + "]";
      i += 5;
    } else if (inside && pattern.substr(i, 3) == "\\x{") {
      if (sets.size() == kMostSets) throw std::logic_error("a pattern with too many sets");
      out += bytes_of_set(sets.size());
      sets.emplace_back(read_ranges(pattern, i));
    } else if (pattern[i] == '\\') {
      out += pattern.substr(i, 2);
      i += 2;
    } else {
      if (pattern[i] == '[') inside = true;
      if (pattern[i] == ']') inside = false;
      out += pattern[i++];
    }
  }
  return out;
}

struct MatchDataFree {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct Pretokenizer::Pattern {
  std::vector<CodeSet> sets;
  std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code;
  std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context;

  explicit Pattern(std::string_view pattern)
      : code(nullptr, pcre2_code_free), context(nullptr, pcre2_match_context_free) {
    const std::string bytes = to_byte_pattern(pattern, sets);
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
      const int result =
          pcre2_match(code.get(), subject, piece.size(), done,
                      PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY_ATSTART, data, context.get());
      if (result == PCRE2_ERROR_NOMATCH) break;
      if (result < 0)
        throw Error(ErrorCode::kFailed, fmt::format("PCRE2 error {} while splitting {} characters",
                                                    result, piece.size()));
      if (found[0] > done) lengths.push_back(found[0] - done);
      if (found[1] > found[0]) lengths.push_back(found[1] - found[0]);
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
  const std::string plain = fold(text, {});
  std::unique_ptr<pcre2_match_data, MatchDataFree> data(pcre2_match_data_create(1, nullptr));
  std::vector<std::size_t> lengths{plain.size()};
  for (const Pattern& pattern : patterns_) {
    const std::string own = pattern.sets.empty() ? std::string() : fold(text, pattern.sets);
    const std::string_view folded = pattern.sets.empty() ? plain : own;
    std::vector<std::size_t> pieces;
    std::size_t start = 0;
    for (std::size_t length : lengths) {
      pattern.split(folded.substr(start, length), data.get(), pieces);
      start += length;
    }
    lengths = std::move(pieces);
  }
  if (plain.size() == text.size()) return lengths;  // ASCII: characters are bytes
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
